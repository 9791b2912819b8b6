package collector

import (
	"net/netip"
	"strconv"
	"strings"
)

// messageReader understands the messages of one program. It sets kind, action,
// outcome and what the message says, and returns false on a message it does not
// know.
type messageReader struct {
	// tags are the program names it reads; a trailing * stands for anything.
	tags []string
	// name appears in the table of doc.go.
	name string
	read func(d *draft, msg string) bool
}

// messageReaders is the list of everything that is understood in syslog and
// journald lines, tried in this order by tag. pam lines come from many
// programs, so readMessage tries them for every tag.
var messageReaders = []messageReader{
	{tags: []string{"sshd", "sshd-session", "sshd-auth"}, name: "sshd", read: readSSHD},
	{tags: []string{"sudo"}, name: "sudo", read: readSudo},
	{tags: []string{"su"}, name: "su", read: readSu},
	{tags: []string{"useradd", "adduser", "userdel", "usermod", "passwd", "chpasswd", "groupadd", "groupdel", "groupmod", "gpasswd", "chage", "chfn", "chsh"}, name: "accounts", read: readAccounts},
	{tags: []string{"CRON", "cron", "crond", "CROND"}, name: "cron", read: readCron},
	{tags: []string{"systemd-logind"}, name: "logind", read: readLogind},
	{tags: []string{"systemd"}, name: "systemd", read: readSystemd},
	{tags: []string{"kernel"}, name: "kernel", read: readKernel},
}

// readMessage fills d from the message of a line whose tag is in
// d.ProcessName. What nobody understands becomes a log_line.
func readMessage(d *draft, msg string) {
	if strings.HasPrefix(msg, "pam_") && readPAM(d, msg) {
		return
	}
	for i := range messageReaders {
		r := &messageReaders[i]
		for _, tag := range r.tags {
			if tag == d.ProcessName {
				if r.read(d, msg) {
					return
				}
				break
			}
		}
	}
	d.what(kindSystem, actionLine, "")
}

// between returns what stands between prefix and the first sep after it.
func between(s, prefix, sep string) (found, rest string, ok bool) {
	if !strings.HasPrefix(s, prefix) {
		return "", s, false
	}
	s = s[len(prefix):]
	i := strings.Index(s, sep)
	if i < 0 {
		return "", s, false
	}
	return s[:i], s[i+len(sep):], true
}

// peer reads "1.2.3.4 port 22 …", sets source.ip and the label port, and
// returns what follows.
func (d *draft) peer(s string) string {
	address, rest := cutWord(s)
	d.address(address)
	if port, after, ok := strings.Cut(strings.TrimPrefix(rest, "port "), " "); strings.HasPrefix(rest, "port ") {
		port = strings.TrimRight(port, ":.,")
		if p, code, cut := strings.Cut(port, ":"); cut { // "port 22:11: reason"
			port, after, ok = p, code+": "+after, true
		}
		if digits(port) {
			d.label("port", port)
		}
		if !ok {
			return ""
		}
		return after
	}
	return rest
}

// address sets source.ip in canonical form. A name instead of an address, which
// a daemon writes that looks names up, becomes the label client.
func (d *draft) address(s string) {
	s = strings.TrimRight(s, ",;.")
	if s == "" || s == "UNKNOWN" || s == "-" {
		return
	}
	ip, err := netip.ParseAddr(s)
	if err != nil {
		s = strings.TrimRight(s, ":")
		ip, err = netip.ParseAddr(s)
	}
	if err != nil {
		d.label("client", s)
		return
	}
	d.SourceIP = ip.Unmap().String()
}

// user sets user.name; "(unknown)" and the like are no names.
func (d *draft) user(name string) {
	name = strings.Trim(name, "'\"`")
	if clean := printable(name); clean != name {
		d.person(name) // stands so in the message
		name = clean
	}
	switch name {
	case "", "(unknown)", "UNKNOWN", "-", "?":
		return
	}
	d.UserName = name
}

// word returns the value of key=value in a message of such pairs.
func word(msg, key string) string {
	for from := 0; ; {
		i := strings.Index(msg[from:], key)
		if i < 0 {
			return ""
		}
		i += from
		if i == 0 || msg[i-1] == ' ' || msg[i-1] == ';' || msg[i-1] == ',' {
			value := msg[i+len(key):]
			if end := strings.IndexAny(value, " ,;"); end >= 0 {
				value = value[:end]
			}
			return value
		}
		from = i + len(key)
	}
}

// cutUID takes "(uid=0)" from the end of a name, as newer PAM writes it.
func cutUID(name string) string {
	if i := strings.Index(name, "(uid="); i >= 0 {
		return name[:i]
	}
	return name
}

// repeated reads "message repeated 5 times: [ what ]".
func repeated(msg string) (n int, inner string, ok bool) {
	count, rest, ok := between(msg, "message repeated ", " times: [")
	if !ok || !strings.HasSuffix(rest, "]") {
		return 0, "", false
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 1 {
		return 0, "", false
	}
	return n, strings.TrimPrefix(rest[:len(rest)-1], " "), true
}

// lastRepeated reads the older "last message repeated 5 times".
func lastRepeated(msg string) (n int, ok bool) {
	count, _, ok := between(msg, "last message repeated ", " time")
	if !ok {
		return 0, false
	}
	n, err := strconv.Atoi(count)
	return n, err == nil && n >= 1
}
