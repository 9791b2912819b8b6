package collector

import "strings"

// readPAM understands the lines that PAM modules write in the name of any
// program: "pam_unix(sshd:session): session opened for user x by (uid=0)".
func readPAM(d *draft, msg string) bool {
	module, rest, ok := strings.Cut(msg, "(")
	if !ok || len(module) > limitTag {
		return false
	}
	where, text, ok := strings.Cut(rest, "): ")
	if !ok {
		return false
	}
	service, phase, _ := strings.Cut(where, ":")
	if !readPAMText(d, text) {
		return false
	}
	d.label("pam_module", module)
	d.label("pam_service", service)
	d.label("pam_phase", phase)
	return true
}

func readPAMText(d *draft, text string) bool {
	switch {
	case strings.HasPrefix(text, "session opened for user "):
		d.what(kindUser, "session_opened", success)
		user, by, _ := cutLast(text[len("session opened for user "):], " by ")
		d.user(cutUID(user))
		if by = cutUID(by); by != "" {
			d.label("by", by)
			d.person(by)
		}
	case strings.HasPrefix(text, "session closed for user "):
		d.what(kindUser, "session_closed", success)
		d.user(cutUID(text[len("session closed for user "):]))
	case strings.HasPrefix(text, "authentication failure;"):
		d.what(kindUser, "authentication_detail", failure)
		d.pamPairs(text)
	case strings.HasPrefix(text, "check pass;"):
		d.what(kindUser, "authentication_detail", failure)
	case strings.HasPrefix(text, "password changed for "):
		d.what(kindUser, "password_changed", success)
		d.user(text[len("password changed for "):])
	case strings.HasPrefix(text, `user "`) && strings.HasSuffix(text, "does not exist in /etc/passwd"):
		name, _, _ := between(text, `user "`, `"`)
		d.what(kindUser, "password_changed", failure)
		d.user(name)
		d.label("reason", "no such user")
	case strings.HasPrefix(text, "auth could not identify password for ["):
		name, _, _ := between(text, "auth could not identify password for [", "]")
		d.what(kindUser, "authentication_detail", failure)
		d.user(name)
	case strings.HasPrefix(text, "account ") && strings.Contains(text, "has expired"):
		name, _, _ := between(text, "account ", " has expired")
		d.what(kindUser, "authentication_detail", failure)
		d.user(name)
		d.label("reason", "account expired")
	case strings.HasPrefix(text, "conversation failed"):
		d.what(kindUser, "authentication_detail", failure)
	case strings.HasPrefix(text, "Cannot create session: "):
		d.what(kindSystem, "session_detail", failure)
		d.label("reason", text[len("Cannot create session: "):])
	default:
		return false
	}
	return true
}

// pamPairs reads "logname=a uid=0 euid=0 tty=ssh ruser=b rhost=1.2.3.4 user=c".
func (d *draft) pamPairs(text string) {
	d.address(word(text, "rhost="))
	d.label("tty", word(text, "tty="))
	// user= comes last and is the account that was tried; ruser= who asked.
	user, by := word(text, "user="), word(text, "ruser=")
	if user == "" {
		user, by = by, ""
	}
	d.user(user)
	if by != "" {
		d.label("by", by)
		d.person(by)
	}
	d.person(word(text, "logname="))
}
