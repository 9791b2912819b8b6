// Package collector brings events to the bus: from this machine (host,
// processes, journal), from log files, from senders by HTTP and NATS, and from
// files that are imported.
//
// A source, one of the list sourceKinds, reads and parses. Its drafts are
// sealed (sealer): secrets are cut, each person's name gets its hash and is
// taken out of every text, the name itself goes to the bus once, sealed. Then
// they wait as a parcel for the publisher (batcher), which numbers events,
// encodes up to a message of them and publishes one message after another. Only
// then a sender is told 202 and a file's position moves. An import does the same
// by itself, under a name and in a time domain of its own (imports).
//
// It promises:
//   - What was acknowledged is on the bus, once, whenever the process dies:
//     positions of files and of the journal are tied to the bus's numbers
//     (positions), requests to their keys (idempotency), imports to their content.
//   - One request, one parcel of a source, stands in one message whole.
//   - Nothing that is kept names a person, but sealed: see replaceNames for the
//     fields, and for the one exception, tenant.id. Dead letters are sealed whole.
//   - No line is dropped: what nobody understands is a log_line. What is refused
//     (JSON that is no event, a time out of bounds) is counted by source and
//     reason, told to its sender, or kept among the dead letters. Lines of a
//     followed file that are older than seven days are counted only: they stay in
//     the file, for coc import.
//   - Bounded memory (limits.go): a full bus holds files back and gives senders
//     429.
//   - A source that fails or panics is shown, and started again.
//
// It never judges an event, never talks to ClickHouse, and never reads the
// environment.
//
// What log lines become (kind, action, outcome; names of people in user.name):
//
//	sshd      Accepted …                                user login success
//	          Failed password, keyboard-interactive …   user login failure (label invalid_user)
//	          Failed publickey, none …                  user login_method_refused failure
//	          Invalid user …                            user invalid_user failure
//	          maximum authentication attempts …         user login_attempts_exceeded failure
//	          User … not allowed because …              user login_not_allowed failure
//	          Connection from …                         user connection_opened success
//	          no identification, bad protocol, timeout  user connection_failed failure (label reason)
//	          Disconnecting …                           user disconnecting failure (label reason)
//	          Received disconnect …                     user disconnect_received success (label reason)
//	          Disconnected from, Connection closed …    user disconnected success
//	          Starting, Close session …                 user session_started, session_ended success
//	          Server listening, Received signal 15      system service_started, service_stopped success
//	sudo      user : … COMMAND=…                        user sudo_command success, failure (label reason)
//	su        Successful, FAILED, (to …)                user su success, failure (label target_user)
//	useradd … new, delete, change user                  user user_created, user_deleted, user_changed
//	          add … to group, delete … from group       user group_member_added, group_member_removed (label group)
//	          new group, removed group                  user group_created, group_deleted
//	passwd    password changed for …                    user password_changed
//	PAM       session opened, closed for user …         user session_opened, session_closed (label pam_service)
//	CRON      (user) CMD (…)                            process cron_job success
//	logind    New, Removed session                      user session_created, session_removed
//	          Session … logged out                      user logout success
//	systemd   Started, Stopped, Failed                  system service_started, service_stopped, service_failed
//	kernel    Out of memory: Killed process             system out_of_memory failure
//	access    a request                                 user http_request success below status 400, else failure
//	(any)     what only says more about one of these    user authentication_detail, session_detail, group_detail
//	(any)     everything else                           system log_line
//
// Of the machine itself:
//
//	host      every 10 s        system host_cpu, host_load, host_memory, host_swap, host_disk, host_network, host_uptime (value)
//	processes as they happen    process process_started, process_exited
package collector
