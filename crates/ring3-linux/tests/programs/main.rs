//! Tests that run programs in sandboxes. Where there is no KVM that can, each of them is reported
//! as ignored, and the reason is printed: never as passed. With `MICROVM_TEST_REQUIRE_ALL` that is a
//! failure.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation
)]

mod assembled;
mod calls;
mod files;
mod fixture;
mod hostile;
mod instructions;
mod lifetimes;
mod limits;
mod mappings;
mod policies;
mod real;
mod signals;

use std::process::ExitCode;

use microvm_ring3::{KvmOptions, KvmPlatform, open_device};
use microvm_test_support::{run, tests};

fn main() -> ExitCode {
    let tests = tests! {
        real:
            busybox_applets_give_the_right_output,
            busybox_writes_files_in_memory_only,
            shell_scripts_of_builtins_and_loops_run,
            programs_that_start_others_are_told_that_there_are_none,
            stdin_reaches_the_program,
            glibc_programs_run_at_fixed_and_any_address,
            rust_programs_run,
            lua_runs_a_script;
        signals:
            faults_end_programs_by_their_signals,
            handlers_run_and_return,
            memory_files_and_pipes_behave,
            stack_is_as_large_as_the_limit;
        limits:
            processor_time_ends_a_spin_and_a_storm_of_calls,
            waiting_is_no_processor_time,
            wall_time_ends_spins_calls_sleeps_and_waits,
            timeout_of_a_run_counts_where_it_is_shorter,
            memory_ends_programs_that_touch_more,
            output_ends_at_its_limit,
            open_files_are_limited,
            interrupts_end_runs_whatever_they_do,
            reset_takes_an_interrupt_back,
            descriptors_of_the_host_are_waited_for,
            full_pipe_and_silent_stdin_end_with_the_run,
            writers_get_what_is_written_and_may_fail;
        instructions:
            privileged_instructions_are_signals,
            instructions_that_hosts_answer_differently_harm_nobody,
            returns_to_any_selector_stay_in_ring_3,
            interrupt_vectors_are_signals_or_ignored;
        hostile:
            addresses_at_the_edges_are_faults,
            mappings_of_all_sizes_and_places_harm_nobody,
            program_that_takes_all_its_memory_away_gets_a_signal,
            forks_are_refused_and_counted,
            system_calls_with_any_arguments_harm_nobody,
            any_signal_frame_harms_nobody,
            paths_do_not_lead_out_of_the_root,
            kernel_file_systems_of_the_host_are_closed,
            fifos_devices_and_sockets_are_not_opened,
            files_that_change_meanwhile_harm_nobody,
            huge_folders_are_listed_in_little_memory;
        calls:
            vectors_files_and_numbers_are_as_on_linux,
            signals_and_names_are_as_on_linux,
            wild_pointers_are_errors_in_every_call,
            policies_are_told_both_paths,
            no_mapping_of_the_program_breaks_the_platform,
            times_beyond_the_clock_are_for_ever,
            streams_are_told_apart_and_give_what_they_have;
        files:
            paths_and_listings_take_as_long_as_they_are,
            open_folders_are_followed_where_they_move,
            folders_of_the_root_show_what_was_changed,
            links_and_mapped_files_count;
        mappings:
            changes_at_random_are_as_accounted_and_reset_equals_fresh;
        lifetimes:
            runs_and_sandboxes_see_nothing_of_each_other,
            what_is_at_the_program_s_path_now_is_run,
            sandboxes_run_side_by_side_on_fewer_processors,
            files_stay_between_runs_and_go_with_a_reset,
            reset_restores_data_that_was_written_and_protections,
            memory_that_a_sandbox_leaves_is_counted_for_the_next,
            many_sandboxes_leave_nothing_behind,
            machines_leave_nothing_behind,
            figures_of_a_warm_reset_are_printed;
        policies:
            policy_allows_denies_and_answers_what_it_wants,
            policy_that_decides_too_late_decides_nothing,
            observer_sees_each_call_as_a_line,
            files_that_cannot_run_are_told_apart,
            options_that_make_no_sense_are_refused;
    };
    let machine =
        open_device(None).and_then(|device| KvmPlatform::new(device, KvmOptions::default()));
    let missing = machine
        .err()
        .map(|error| format!("there is no KVM that can: {error}"));
    microvm_kvm::reaper::wait_idle();
    run(tests, missing)
}
