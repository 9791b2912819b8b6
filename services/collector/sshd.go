package collector

import "strings"

// sshdStart is one way an sshd message may begin.
type sshdStart struct {
	prefix string
	read   func(d *draft, rest string) bool
}

// sshdStarts lists what sshd says, by how it begins. Names come from whoever
// knocks, so an address is looked for from the end of the message: a user
// called "root from 10.0.0.1 port 22" changes nothing.
var sshdStarts = []sshdStart{
	{"Accepted ", sshdAccepted},
	{"Failed ", sshdFailed},
	{"Invalid user ", sshdInvalidUser},
	{"input_userauth_request: invalid user ", sshdDetail},
	{"PAM ", sshdPAM},
	{"error: PAM: ", sshdDetail},
	{"error: maximum authentication attempts exceeded for ", sshdAttempts},
	{"maximum authentication attempts exceeded for ", sshdAttempts},
	{"Received disconnect from ", sshdReceivedDisconnect},
	{"Disconnected from ", sshdDisconnected},
	{"Disconnecting ", sshdDisconnecting},
	{"Disconnecting: ", sshdDisconnectingOld},
	{"Connection closed by ", sshdDisconnected},
	{"Connection reset by ", sshdDisconnected},
	{"Timeout before authentication for ", sshdFailedConnection("timeout before authentication")},
	{"Connection from ", sshdConnection},
	{"Did not receive identification string from ", sshdFailedConnection("no identification")},
	{"Bad protocol version identification ", sshdBadProtocol},
	{"banner exchange: Connection from ", sshdFailedConnection("banner exchange")},
	{"fatal: Unable to negotiate with ", sshdFailedConnection("no common method")},
	{"Unable to negotiate with ", sshdFailedConnection("no common method")},
	{"Starting session: ", sshdStartingSession},
	{"Close session: user ", sshdCloseSession},
	{"User child is on pid ", sshdChild},
	{"Server listening on ", sshdService("service_started")},
	{"Received signal ", sshdService("service_stopped")},
	{"User ", sshdNotAllowed},
}

// readSSHD understands sshd.
func readSSHD(d *draft, msg string) bool {
	for i := range sshdStarts {
		s := &sshdStarts[i]
		if strings.HasPrefix(msg, s.prefix) && s.read(d, msg[len(s.prefix):]) {
			return true
		}
	}
	return false
}

// userFrom splits "<user> from <address> …" at the last " from ".
func userFrom(s string) (user, from string, ok bool) {
	i := strings.LastIndex(s, " from ")
	if i < 0 {
		return "", "", false
	}
	return s[:i], s[i+len(" from "):], true
}

// sshdAccepted: "password for ubuntu from 1.2.3.4 port 22 ssh2[: RSA SHA256:…]".
func sshdAccepted(d *draft, rest string) bool {
	method, rest, ok := strings.Cut(rest, " for ")
	if !ok {
		return false
	}
	user, from, ok := userFrom(rest)
	if !ok {
		return false
	}
	d.what(kindUser, "login", success)
	d.user(user)
	d.label("method", method)
	d.peer(from)
	return true
}

// sshdFailed: "password for [invalid user ]x from 1.2.3.4 port 22 ssh2".
//
// A client offers each of its keys in turn and asks for "none" first; such a
// refusal precedes good logins too and is no failed login.
func sshdFailed(d *draft, rest string) bool {
	method, rest, ok := strings.Cut(rest, " for ")
	if !ok {
		return false
	}
	user, from, ok := userFrom(rest)
	if !ok {
		// "Failed password for invalid user  from …" with an empty name leaves
		// nothing before " from ".
		if from, ok = strings.CutPrefix(rest, "from "); !ok {
			return false
		}
	}
	switch {
	case method == "password", strings.HasPrefix(method, "keyboard-interactive"):
		d.what(kindUser, "login", failure)
	default:
		d.what(kindUser, "login_method_refused", failure)
	}
	if name, invalid := strings.CutPrefix(user, "invalid user"); invalid && (name == "" || name[0] == ' ') {
		user = strings.TrimPrefix(name, " ")
		d.label("invalid_user", "true")
	}
	d.user(user)
	d.label("method", method)
	d.peer(from)
	return true
}

// sshdInvalidUser: "x from 1.2.3.4[ port 22]".
func sshdInvalidUser(d *draft, rest string) bool {
	user, from, ok := userFrom(" " + rest)
	if !ok {
		return false
	}
	d.what(kindUser, "invalid_user", failure)
	d.user(strings.TrimPrefix(user, " "))
	d.peer(from)
	return true
}

// sshdDetail is what says more about a login that has its own line:
// "x [preauth]", "Authentication failure for x from 1.2.3.4".
func sshdDetail(d *draft, rest string) bool {
	rest = d.preauth(rest)
	d.what(kindUser, "authentication_detail", failure)
	if _, after, ok := strings.Cut(rest, " for "); ok {
		rest = strings.TrimPrefix(after, "illegal user ")
		rest = strings.TrimPrefix(rest, "invalid user ")
	}
	if user, from, ok := userFrom(rest); ok {
		d.user(user)
		d.peer(from)
		return true
	}
	d.user(rest)
	return true
}

// sshdPAM: "5 more authentication failures; logname= … rhost=1.2.3.4 user=x",
// "service(sshd) ignoring max retries; 6 > 3".
func sshdPAM(d *draft, rest string) bool {
	if count, after, ok := strings.Cut(rest, " more authentication failure"); ok && digits(count) {
		d.what(kindUser, "authentication_detail", failure)
		d.label("failures", count)
		d.pamPairs(after)
		return true
	}
	if strings.HasPrefix(rest, "service(") {
		d.what(kindUser, "authentication_detail", failure)
		return true
	}
	return false
}

// sshdAttempts: "[invalid user ]x from 1.2.3.4 port 22 ssh2 [preauth]".
func sshdAttempts(d *draft, rest string) bool {
	user, from, ok := userFrom(d.preauth(rest))
	if !ok {
		return false
	}
	d.what(kindUser, "login_attempts_exceeded", failure)
	if name, invalid := strings.CutPrefix(user, "invalid user"); invalid {
		user = strings.TrimPrefix(name, " ")
		d.label("invalid_user", "true")
	}
	d.user(user)
	d.peer(from)
	return true
}

// sshdReceivedDisconnect: "1.2.3.4 port 22:11: disconnected by user".
func sshdReceivedDisconnect(d *draft, rest string) bool {
	d.what(kindUser, "disconnect_received", success)
	rest = d.peer(d.preauth(rest))
	code, reason, ok := strings.Cut(rest, ":")
	if ok && digits(code) {
		d.label("code", code)
		rest = reason
	}
	d.label("reason", strings.TrimSpace(rest))
	return true
}

// sshdDisconnected: "[authenticating |invalid ]user x 1.2.3.4 port 22",
// "1.2.3.4 port 22".
func sshdDisconnected(d *draft, rest string) bool {
	d.what(kindUser, "disconnected", success)
	d.peer(d.connectionUser(d.preauth(rest)))
	return true
}

// sshdDisconnecting: "authenticating user x 1.2.3.4 port 22: Too many
// authentication failures".
func sshdDisconnecting(d *draft, rest string) bool {
	rest = d.preauth(rest)
	d.what(kindUser, "disconnecting", failure)
	what, reason, _ := strings.Cut(rest, ": ")
	d.peer(d.connectionUser(what))
	d.label("reason", reason)
	return true
}

// sshdDisconnectingOld: "Too many authentication failures [preauth]".
func sshdDisconnectingOld(d *draft, rest string) bool {
	d.what(kindUser, "disconnecting", failure)
	d.label("reason", d.preauth(rest))
	return true
}

// connectionUser takes "invalid user x" from before "1.2.3.4 port 22". The name
// may hold spaces and may be empty; the address is found from the end.
func (d *draft) connectionUser(rest string) string {
	for _, prefix := range [...]string{"authenticating user ", "invalid user ", "user "} {
		after, ok := strings.CutPrefix(rest, prefix)
		if !ok {
			continue
		}
		if prefix == "invalid user " {
			d.label("invalid_user", "true")
		}
		end := len(after)
		if port := strings.LastIndex(after, " port "); port >= 0 {
			end = port
		}
		at := strings.LastIndexByte(after[:end], ' ')
		d.user(strings.TrimSpace(after[:max(at, 0)]))
		return after[at+1:]
	}
	return rest
}

// sshdConnection: "1.2.3.4 port 61663 on 10.0.0.1 port 22".
func sshdConnection(d *draft, rest string) bool {
	d.what(kindUser, "connection_opened", success)
	d.peer(rest)
	return true
}

// sshdFailedConnection: "1.2.3.4 port 22: …".
func sshdFailedConnection(reason string) func(*draft, string) bool {
	return func(d *draft, rest string) bool {
		d.what(kindUser, "connection_failed", failure)
		rest = d.preauth(rest)
		rest = strings.TrimPrefix(rest, "connection from ")
		d.peer(rest)
		d.label("reason", reason)
		return true
	}
}

// sshdBadProtocol: "'GET / HTTP/1.1' from 1.2.3.4 port 22".
func sshdBadProtocol(d *draft, rest string) bool {
	sent, from, ok := userFrom(rest)
	if !ok {
		return false
	}
	d.what(kindUser, "connection_failed", failure)
	d.label("reason", "bad protocol")
	d.label("sent", strings.Trim(sent, "'"))
	d.peer(from)
	return true
}

// sshdStartingSession: "shell on pts/0 for x from 1.2.3.4 port 22 id 0".
func sshdStartingSession(d *draft, rest string) bool {
	user, from, ok := userFrom(rest)
	if !ok {
		return false
	}
	kind, user, ok := cutLast(user, " for ")
	if !ok {
		return false
	}
	d.what(kindUser, "session_started", success)
	d.user(user)
	d.label("session", kind)
	d.peer(from)
	return true
}

// sshdCloseSession: "x from 1.2.3.4 port 22 id 0".
func sshdCloseSession(d *draft, rest string) bool {
	user, from, ok := userFrom(rest)
	if !ok {
		return false
	}
	d.what(kindUser, "session_ended", success)
	d.user(user)
	d.peer(from)
	return true
}

func sshdChild(d *draft, rest string) bool {
	if !digits(rest) {
		return false
	}
	d.what(kindProcess, "session_detail", success)
	d.label("child_pid", rest)
	return true
}

func sshdService(action string) func(*draft, string) bool {
	return func(d *draft, rest string) bool {
		if action == "service_stopped" && !strings.Contains(rest, "terminating") {
			return false
		}
		d.what(kindSystem, action, success)
		d.ResourceType, d.ResourceName = "service", "sshd"
		return true
	}
}

// sshdNotAllowed: "x from 1.2.3.4 not allowed because not listed in AllowUsers".
func sshdNotAllowed(d *draft, rest string) bool {
	what, reason, ok := cutLast(rest, " not allowed because ")
	if !ok {
		return false
	}
	user, from, ok := userFrom(what)
	if !ok {
		return false
	}
	d.what(kindUser, "login_not_allowed", failure)
	d.user(user)
	d.peer(from)
	d.label("reason", reason)
	return true
}

// preauth takes " [preauth]" from the end and notes it.
func (d *draft) preauth(s string) string {
	if rest, ok := strings.CutSuffix(s, "[preauth]"); ok {
		d.label("preauth", "true")
		return strings.TrimRight(rest, " ")
	}
	return s
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
