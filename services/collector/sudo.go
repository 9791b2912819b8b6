package collector

import "strings"

// readSudo understands sudo:
//
//	ubuntu : TTY=pts/0 ; PWD=/home/ubuntu ; USER=root ; COMMAND=/usr/bin/vim x
//	ubuntu : 3 incorrect password attempts ; TTY=… ; USER=root ; COMMAND=…
//	ubuntu : user NOT in sudoers ; TTY=… ; COMMAND=…
func readSudo(d *draft, msg string) bool {
	user, rest, ok := strings.Cut(strings.TrimLeft(msg, " "), " : ")
	if !ok || user == "" || strings.IndexByte(user, ' ') >= 0 {
		return false
	}
	d.what(kindUser, "sudo_command", success)
	d.user(user)
	found := false
	for rest != "" {
		// COMMAND comes last and may hold " ; " itself.
		if command, is := strings.CutPrefix(rest, "COMMAND="); is {
			d.command(command)
			found = true
			break
		}
		var part string
		part, rest, _ = strings.Cut(rest, " ; ")
		part = strings.TrimSpace(part)
		key, value, pair := strings.Cut(part, "=")
		switch {
		case !pair && part != "":
			d.Outcome = failure
			d.label("reason", part)
			found = true
		case key == "USER":
			d.label("target_user", value)
			d.person(value)
			found = true
		case key == "TTY":
			d.label("tty", value)
		case key == "PWD":
			d.label("directory", value)
		case key == "GROUP":
			d.label("target_group", value)
		}
	}
	return found
}

// command sets what was run: the whole line, and the program's path from it.
func (d *draft) command(line string) {
	d.ProcessCommandLine = line
	program, _ := cutWord(strings.TrimLeft(line, " "))
	if strings.IndexByte(program, '/') >= 0 {
		d.ProcessExecutable = program
	}
}

// readSu understands su in its old and new wording.
func readSu(d *draft, msg string) bool {
	outcome := success
	rest := msg
	for _, p := range [...]string{"FAILED SU ", "FAILED su "} {
		if after, ok := strings.CutPrefix(rest, p); ok {
			outcome, rest = failure, after
		}
	}
	rest = strings.TrimPrefix(rest, "Successful su ")
	switch {
	case strings.HasPrefix(rest, "for "): // "for root by ubuntu"
		target, by, ok := cutLast(rest[len("for "):], " by ")
		if !ok {
			return false
		}
		d.su(by, target, outcome)
	case strings.HasPrefix(rest, "(to "): // "(to root) ubuntu on pts/0"
		target, after, ok := between(rest, "(to ", ") ")
		if !ok {
			return false
		}
		by, tty, _ := cutLast(after, " on ")
		d.su(by, target, outcome)
		d.label("tty", tty)
	case len(rest) > 2 && (rest[0] == '+' || rest[0] == '-') && rest[1] == ' ': // "+ /dev/pts/0 ubuntu:root"
		tty, who := cutWord(rest[2:])
		by, target, ok := strings.Cut(who, ":")
		if !ok {
			return false
		}
		if rest[0] == '-' {
			outcome = failure
		}
		d.su(by, target, outcome)
		d.Action = "authentication_detail" // "Successful su" is the event
		d.label("tty", tty)
	default:
		return false
	}
	return true
}

func (d *draft) su(by, target, outcome string) {
	d.what(kindUser, "su", outcome)
	d.user(by)
	d.label("target_user", target)
	d.person(target)
}
