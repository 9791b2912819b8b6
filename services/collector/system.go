package collector

import (
	"strconv"
	"strings"
)

// readCron understands cron: "(root) CMD (run-parts /etc/cron.hourly)".
func readCron(d *draft, msg string) bool {
	user, rest, ok := between(msg, "(", ") ")
	if !ok {
		return false
	}
	what, arg, ok := strings.Cut(rest, " (")
	if !ok {
		return false
	}
	switch what {
	case "CMD":
		d.what(kindProcess, "cron_job", success)
		d.command(strings.TrimSpace(strings.TrimSuffix(arg, ")")))
	case "CMDEND":
		d.what(kindProcess, "cron_job_ended", success)
		d.command(strings.TrimSpace(strings.TrimSuffix(arg, ")")))
	default:
		return false
	}
	d.user(user)
	return true
}

// readLogind understands systemd-logind.
func readLogind(d *draft, msg string) bool {
	switch {
	case strings.HasPrefix(msg, "New session "):
		session, rest, ok := between(msg, "New session ", " of user ")
		if !ok {
			return false
		}
		d.what(kindUser, "session_created", success)
		d.SessionID = printable(strings.Trim(session, "'"))
		user, class, _ := strings.Cut(rest, " with class ")
		d.user(strings.TrimSuffix(user, "."))
		class, kind, _ := strings.Cut(class, " and type ")
		d.label("session_class", strings.Trim(class, "'."))
		d.label("session_type", strings.Trim(kind, "'."))
	case strings.HasPrefix(msg, "Removed session "):
		d.what(kindUser, "session_removed", success)
		d.SessionID = printable(strings.Trim(strings.TrimSuffix(msg[len("Removed session "):], "."), "'"))
	case strings.HasPrefix(msg, "Session ") && strings.Contains(msg, " logged out."):
		session, _, _ := between(msg, "Session ", " logged out.")
		d.what(kindUser, "logout", success)
		d.SessionID = printable(strings.Trim(session, "'"))
	default:
		return false
	}
	return true
}

// readSystemd understands what the first process says of its units.
func readSystemd(d *draft, msg string) bool {
	switch {
	case strings.HasPrefix(msg, "Started "):
		d.unit("service_started", success, msg[len("Started "):])
	case strings.HasPrefix(msg, "Stopped "):
		d.unit("service_stopped", success, msg[len("Stopped "):])
	case strings.HasPrefix(msg, "Failed to start "):
		d.unit("service_started", failure, msg[len("Failed to start "):])
	case strings.Contains(msg, ": Failed with result "):
		unit, result, _ := strings.Cut(msg, ": Failed with result ")
		d.unit("service_failed", failure, unit)
		d.label("reason", strings.Trim(result, "'."))
	default:
		return false
	}
	return true
}

// unit: "ssh.service - OpenBSD Secure Shell server.", "Session 5 of User x.".
func (d *draft) unit(action, outcome, what string) {
	d.what(kindSystem, action, outcome)
	d.ResourceType = "service"
	name, title, named := strings.Cut(strings.TrimSuffix(strings.TrimSuffix(what, "."), "…"), " - ")
	if _, user, ok := cutLast(what, " of User "); ok || strings.HasSuffix(name, ".scope") && strings.Contains(title, " of User ") {
		user = strings.TrimSuffix(user, ".")
		d.person(user)
	}
	if named || strings.IndexByte(name, ' ') < 0 {
		d.ResourceName = printable(name)
		return
	}
	// Older systemd gives the description only: what somebody wrote.
	d.ResourceTitle = name
}

// readKernel understands the killing of processes for want of memory.
func readKernel(d *draft, msg string) bool {
	i := strings.Index(msg, "Killed process ")
	if i < 0 || !strings.Contains(strings.ToLower(msg), "out of memory") {
		return false
	}
	d.what(kindSystem, "out_of_memory", failure)
	pid, rest := cutWord(msg[i+len("Killed process "):])
	if n, err := strconv.ParseInt(strings.TrimRight(pid, ","), 10, 32); err == nil && n >= 0 {
		d.SetPID(n)
	}
	if name, _, ok := between(rest, "(", ")"); ok {
		d.label("killed", name)
	}
	return true
}
