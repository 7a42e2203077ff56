//! The daemon as its front ends and its callers see it: the built executable, driven over its socket by a front end
//! that makes every request, good or bad, by hand.
//!
//! Run as root it also tries what only root can: other users, mounts, chroot. A test that cannot be tried is
//! reported as ignored, and says why.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation
)]

mod denied;
mod descriptors;
mod driver;
mod ends;
mod files;
mod fuse;
mod guest;
mod hostile;
mod life;
mod migration;
mod mounts;
mod names;
mod options;
mod process;
mod protocol;
mod rings;
mod sandbox;
mod shrinking;
mod single_file;
mod state;
mod transfer;

use std::process::ExitCode;

use microvm_test_support::{run, tests};
use options::{access, agreed, attributes, ids, log, pool, privileges, refused};

fn main() -> ExitCode {
    let mut all = tests! {
        denied:
            an_ordinary_user_cannot_give_the_socket_to_a_group_that_is_not_its_own,
            where_unshare_is_denied_the_sandbox_is_refused_with_what_can_be_done,
            where_unshare_is_denied_several_threads_are_refused_with_what_may_deny_it,
            where_user_namespaces_are_forbidden_an_ordinary_user_is_told_what_can_be_done,
            without_a_syslog_the_log_goes_to_standard_error_and_says_so;
        descriptors:
            descriptors_of_another_kind_are_refused_or_do_nothing_and_none_stays_open;
        ends:
            a_server_that_dies_by_a_signal_is_told_with_it,
            a_front_end_that_speaks_something_else_is_a_failure,
            a_server_is_missed_also_where_sigchld_is_ignored,
            nothing_of_a_daemon_that_has_ended_runs_on;
        files:
            a_guest_reads_and_writes_files_one_request_after_another,
            a_guest_reads_and_writes_files_by_a_pool_of_threads,
            each_of_several_request_queues_serves_requests_and_suppresses_interrupts_as_asked,
            requests_that_were_offered_before_the_kick_are_all_answered,
            the_configuration_space_has_the_tag_and_the_number_of_queues;
        hostile:
            chains_that_are_no_requests_take_their_queue_out_of_service_and_nothing_else,
            a_loop_of_descriptors_comes_to_an_end,
            an_available_index_beyond_the_ring_takes_it_out_of_service,
            a_queue_that_was_out_of_service_is_good_again_after_a_new_start,
            requests_that_make_no_sense_are_answered_with_an_error,
            a_front_end_that_breaks_the_protocol_is_refused_and_the_next_one_served,
            a_kick_before_the_enabling_is_not_lost,
            a_connection_that_breaks_off_in_a_request_leaves_the_daemon_well,
            a_guest_that_opens_without_end_is_refused_in_time;
        life:
            signals_end_it_with_status_1_and_leave_no_files,
            the_end_of_the_connection_ends_it_with_status_0_and_leaves_no_files,
            a_server_that_is_killed_ends_the_whole_daemon_and_leaves_no_files,
            an_end_is_noticed_where_the_starter_ignores_those_of_its_children,
            a_supervisor_that_is_killed_takes_the_server_along_and_the_next_daemon_takes_over,
            the_pid_file_names_the_daemon_and_keeps_a_second_one_away,
            the_socket_is_for_its_user,
            the_socket_is_for_a_group_where_one_is_named,
            an_inherited_socket_is_accepted_on_and_left_in_place;
        migration:
            another_file_of_the_same_name_is_noticed_where_files_are_verified,
            a_file_that_is_not_found_ends_the_transfer_or_is_an_error_of_the_guests,
            a_file_that_is_renamed_meanwhile_is_found_where_paths_are_confirmed;
        names:
            the_folder_above_cannot_be_looked_up_in_any_sandbox;
        protocol:
            what_is_offered_is_what_something_is_done_with,
            a_device_that_is_reset_begins_anew_with_the_same_connection,
            a_device_that_is_reset_while_its_rings_run_serves_none_until_they_go_on,
            memory_is_added_and_taken_away_while_the_guest_runs,
            there_is_room_for_as_many_pieces_of_memory_as_are_told;
        rings:
            a_request_behind_a_broken_one_keeps_no_daemon_alive,
            a_ring_that_is_given_back_full_is_left_alone_and_worked_off_after_its_next_start,
            a_ring_that_is_paused_full_is_worked_off_when_it_goes_on,
            a_driver_that_never_stops_offering_stops_nobody_else,
            a_driver_that_offers_requests_again_before_they_are_back_is_put_out_of_service,
            descriptors_that_take_no_more_hold_nobody_up,
            a_guest_that_breaks_its_ring_again_and_again_does_not_fill_the_log;
        sandbox:
            links_to_the_outside_are_told_and_never_followed,
            names_that_are_paths_reach_nothing_even_without_a_sandbox,
            a_server_sees_the_share_as_its_root_and_no_other_process,
            a_folder_that_is_swapped_for_a_link_while_it_is_looked_up_leads_nowhere,
            an_ordinary_user_serves_its_files_from_a_namespace,
            noatime_is_left_away_where_it_would_fail_unless_it_is_to_be_kept,
            an_ordinary_user_is_told_why_there_is_no_chroot,
            a_full_disk_is_told_to_the_guest,
            a_single_file_is_shared_alone_in_a_folder_that_takes_nothing_else;
        shrinking:
            a_buffer_that_is_cut_off_takes_its_ring_out_of_service_and_nothing_else_ends,
            rings_that_are_cut_off_go_out_of_service_and_nothing_else_ends,
            a_log_of_writes_that_is_cut_off_ends_nothing_else,
            sigbus_of_anyone_elses_still_ends_the_daemon;
        single_file:
            a_file_in_the_root_folder_of_the_host_is_shared_and_stays_as_it_is,
            a_file_may_lie_in_any_folder;
        state:
            a_state_that_one_daemon_saved_goes_on_in_another_with_its_open_files,
            a_state_goes_on_by_file_handles,
            a_state_that_is_none_is_refused_and_a_check_without_a_transfer_too,
            a_front_end_that_comes_back_goes_on_and_a_new_guest_begins_anew,
            connections_leave_no_descriptor_and_no_thread_behind;
        transfer:
            a_state_that_comes_after_its_front_end_has_gone_is_not_applied,
            the_outcome_of_a_transfer_whose_other_end_stays_open_is_not_waited_for_long,
            a_transfer_ends_when_its_front_end_goes,
            a_transfer_that_is_given_up_is_prepared_anew_when_it_is_announced_again,
            a_state_that_comes_ends_the_preparation_of_one_that_was_to_go,
            a_second_transfer_is_refused_while_one_is_under_way_which_goes_on;
    };
    all.extend(tests! {
        agreed:
            cache_policies_give_their_times,
            options_show_in_what_is_agreed_with_the_guest,
            what_must_be_is_refused_to_a_guest_without_it_and_what_may_be_is_left_away,
            cache_policies_say_what_becomes_of_a_files_content;
        attributes:
            extended_attributes_are_there_when_asked_for_and_renamed_when_mapped,
            access_lists_are_the_hosts_own,
            a_new_file_gets_its_folders_list_or_the_umask_of_the_guests_program,
            a_new_file_gets_the_security_label_that_the_guest_sends,
            setuid_and_setgid_bits_are_cleared_for_the_guest_that_agreed_to_it;
        access:
            a_read_only_share_takes_no_change,
            a_folder_by_a_link_is_the_folder,
            file_handles_save_descriptors_where_they_are_wanted,
            direct_access_is_passed_on_when_it_is_allowed,
            mount_points_are_told_unless_they_are_not_to_be,
            errors_of_the_disk_are_told_to_the_guest_and_only_that_request_fails,
            a_file_system_without_handles_is_noticed_where_they_are_preferred_and_refused_where_they_must_be,
            delayed_writes_can_read_what_they_complete,
            what_a_guest_has_not_written_yet_is_not_called_a_hole;
        ids:
            user_ids_are_translated,
            requests_act_as_the_guests_user_where_the_daemon_is_root,
            every_kind_of_translation_goes_the_ways_that_it_says,
            an_ordinary_user_is_who_its_map_says_in_its_namespace,
            ranges_of_users_are_mapped_where_the_host_grants_them;
        log:
            log_levels_are_followed_and_the_environment_has_precedence,
            a_log_level_leaves_out_what_is_below_it,
            the_old_names_of_the_socket_and_the_folder_still_work,
            its_capabilities_for_management_software_are_printed_alone,
            its_file_for_management_software_is_printed_with_where_it_is,
            a_log_for_syslog_goes_there_and_nowhere_else;
        pool:
            a_pool_has_as_many_threads_as_were_asked_for,
            a_pool_works_on_as_many_requests_at_a_time_as_it_has_threads;
        privileges:
            capabilities_are_those_that_were_asked_for_and_no_others_can_come_back,
            seccomp_is_in_force_unless_it_is_not_wanted,
            the_limit_of_open_files_is_what_was_asked_for,
            the_limit_of_open_files_is_a_million_or_what_is_possible,
            the_limit_of_open_files_is_the_hard_one_where_no_more_is_possible,
            a_guest_that_has_all_of_its_open_files_is_told_and_gets_more_when_it_forgets_some;
        refused:
            wrong_usage_ends_with_status_2_and_says_what_is_wrong,
            what_does_not_go_together_ends_with_status_1_and_a_message,
            a_file_in_the_sockets_place_is_not_overwritten;
    });
    run(all, None)
}
