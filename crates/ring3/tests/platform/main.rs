//! Tests that run programs in ring 3. Where there is no KVM that can, each of them is reported as
//! ignored, and the reason is printed: never as passed. With `MICROVM_TEST_REQUIRE_ALL` that is a
//! failure.
//!
//! The programs are a few bytes of machine code.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation
)]

mod calls;
mod faults;
mod fixture;
mod hostile;
mod interrupts;
mod lifetimes;
mod mappings;
mod odd_hosts;
mod speed;
mod state;
mod threads;

use std::process::ExitCode;

use microvm_ring3::{KvmOptions, KvmPlatform, Platform, open_device};
use microvm_test_support::{run, tests};

fn main() -> ExitCode {
    if let Ok(host) = std::env::var(odd_hosts::ODD_HOST) {
        odd_hosts::child(&host);
        return ExitCode::SUCCESS;
    }
    let tests = tests! {
        calls:
            system_call_keeps_all_registers_but_the_two_that_it_uses,
            full_restore_sets_every_register,
            partial_restore_leaves_rip_and_flags_in_rcx_and_r11,
            flags_that_programs_may_not_set_are_dropped,
            instruction_pointer_outside_the_lower_half_is_a_general_protection_fault,
            context_of_another_machine_is_refused;
        state:
            segment_bases_are_set_and_survive_calls_and_faults,
            floating_point_and_vector_registers_survive_calls_and_faults,
            contexts_that_share_a_vcpu_keep_their_own_state,
            new_context_sees_nothing_of_the_one_before,
            extended_state_is_read_and_set_as_bytes,
            malformed_extended_state_is_an_error_and_harms_nobody,
            time_stamp_counter_never_goes_back,
            time_stamp_counters_of_two_vcpus_are_one_where_the_host_s_are;
        faults:
            read_of_an_unmapped_page_tells_address_and_access,
            write_to_a_read_only_page_tells_that_it_is_one,
            execution_of_data_is_a_fault_at_the_instruction,
            first_fetch_in_an_empty_space_is_a_fault,
            fault_is_retried_once_the_page_is_there,
            exceptions_have_their_numbers,
            single_step_stops_behind_the_instruction;
        hostile:
            kernel_half_is_closed_to_reads_writes_and_jumps,
            privileged_instructions_are_faults,
            port_access_ends_with_the_program_that_began_it,
            all_interrupt_vectors_are_faults_or_ignored,
            jumps_into_the_last_page_harm_nobody,
            wild_stack_pointers_harm_nobody,
            code_that_changes_itself_runs_as_changed;
        mappings:
            unmapped_page_is_gone_and_the_next_one_is_not,
            pages_mapped_one_by_one_are_changed_one_by_one,
            protection_is_taken_and_given_back,
            page_without_access_keeps_its_contents,
            remapped_page_shows_the_new_memory_two_thousand_times,
            remapping_is_seen_by_a_program_that_runs,
            memory_is_shared_between_spaces,
            edges_of_the_address_space_are_checked,
            parts_outside_of_a_memory_are_refused,
            protecting_a_hole_changes_nothing,
            lookup_tells_what_is_mapped,
            whole_unit_can_be_mapped_ahead,
            write_to_a_mapped_file_reaches_it,
            read_only_file_cannot_be_mapped_for_writing,
            file_that_became_shorter_is_a_bus_error,
            released_space_refuses_everything,
            space_is_released_while_a_program_runs_in_it;
        interrupts:
            interrupt_before_a_switch_returns_at_once,
            interrupt_that_is_withdrawn_ends_no_switch,
            interrupt_ends_an_endless_loop,
            none_of_a_thousand_interrupts_is_lost,
            interrupts_among_calls_and_faults_all_arrive,
            interrupt_among_system_calls_is_seen_by_the_next_switch,
            timeout_ends_an_endless_loop,
            timeout_that_was_not_needed_does_not_end_the_next_switch;
        threads:
            more_threads_than_vcpus_all_finish,
            thread_gets_its_own_vcpu_again,
            wait_for_a_vcpu_ends_with_the_time_or_an_interrupt,
            vcpu_goes_to_who_waits_before_its_thread_gets_it_again,
            context_moves_between_threads_with_its_state,
            two_machines_alternate_on_one_thread,
            atomic_additions_of_two_programs_all_count;
        lifetimes:
            device_is_closed_when_the_machine_is_made,
            facts_of_the_platform_are_those_of_its_kind,
            thousands_of_spaces_and_contexts_leave_nothing_behind,
            machines_leave_nothing_behind;
        odd_hosts:
            host_that_lacks_a_capability_is_unsupported_for_good,
            host_that_fails_the_self_test_is_unsupported_for_good,
            failure_of_the_first_machine_is_that_of_all_others,
            machine_that_fails_halfway_is_closed_and_the_next_one_works;
        speed:
            round_trip_is_measured_against_a_bare_exit;
    };
    let machine =
        open_device(None).and_then(|device| KvmPlatform::new(device, KvmOptions::default()));
    if let Ok(platform) = &machine {
        eprintln!("{:?}", platform.host_traits());
    }
    let missing = machine
        .err()
        .map(|error| format!("there is no KVM that can: {error}"));
    microvm_kvm::reaper::wait_idle();
    run(tests, missing)
}
