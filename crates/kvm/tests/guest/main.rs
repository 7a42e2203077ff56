//! Tests that need a KVM device. Where there is none each of them is reported as ignored, and the
//! reason is printed: never as passed.
//!
//! The guests are a few bytes of real-mode code, which every KVM can run, one that emulates guest
//! kernels included.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap
)]

mod exits;
mod fixture;
mod immediate_exit;
mod lifetimes;
mod open;
mod slots;
mod speed;
mod state;

use std::process::ExitCode;

use microvm_test_support::{run, tests};

fn main() -> ExitCode {
    let tests = tests! {
        open:
            default_device_speaks_version_12_and_closes_on_exec,
            device_opens_by_path_and_from_a_descriptor,
            missing_device_names_its_path_and_enoent,
            path_with_a_nul_is_refused,
            other_files_are_refused_without_an_ioctl,
            other_character_devices_are_refused_by_their_answer,
            descriptor_of_a_virtual_machine_is_refused,
            extensions_are_answered_as_integers,
            supported_cpuid_is_asked_once,
            run_state_size_is_at_least_a_page;
        exits:
            real_mode_guest_prints_through_a_port,
            port_read_gets_its_answer,
            string_output_arrives_in_order,
            string_input_gets_every_byte,
            unbacked_memory_is_written_and_read_as_mmio,
            halt_leaves_the_guest,
            triple_fault_is_a_shutdown,
            unemulatable_code_is_an_internal_error,
            completed_exit_has_reached_the_registers,
            last_exit_can_be_answered_later,
            raw_run_state_tells_the_exit;
        immediate_exit:
            request_before_a_run_ends_that_run_once,
            request_from_another_thread_ends_an_endless_loop,
            request_works_on_a_thread_that_blocks_all_signals,
            request_behind_an_exit_waits_for_the_next_run,
            no_request_of_many_is_lost,
            no_request_is_lost_to_the_completion_of_an_exit,
            request_after_the_runner_is_gone_does_nothing,
            withdrawn_request_ends_no_run,
            request_works_on_a_thread_that_blocks_other_signals,
            completing_an_exit_keeps_a_request,
            runner_moves_between_threads;
        slots:
            overlapping_slot_is_refused_with_the_slot_in_the_way,
            unaligned_or_overflowing_address_is_refused,
            replaced_slot_shows_the_new_memory_and_frees_the_old,
            refused_replacement_leaves_the_slot_as_it_was,
            same_region_moves_in_one_step,
            removed_slot_frees_its_region_and_becomes_mmio,
            removing_an_unused_slot_is_an_error,
            slot_keeps_a_region_that_its_maker_dropped,
            slot_number_out_of_range_is_the_kernels_answer;
        state:
            closure_value_is_handed_back_by_modify_regs,
            every_state_that_is_read_can_be_set_again,
            msr_that_kvm_refuses_is_named,
            many_msrs_take_several_calls,
            vcpu_number_in_use_or_too_high_is_refused,
            debug_registers_keep_their_values;
        speed:
            loops_run_in_both_rings_and_take_measurable_time;
        lifetimes:
            vcpu_outlives_the_handles_it_came_from,
            nothing_is_left_open_or_mapped_after_fifty_rounds;
    };
    let missing = microvm_kvm::Kvm::open().err();
    run(
        tests,
        missing.map(|error| format!("there is no KVM: {error}")),
    )
}
