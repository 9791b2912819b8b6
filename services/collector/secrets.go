package collector

import (
	"strings"

	"github.com/opencoc/coc/services/event"
)

// secretCut stands where a secret was.
const secretCut = "[secret]"

// cutSecrets takes passwords, tokens and keys out of every text in which
// somebody may have written one, marks the event with secret:<field> for each
// and returns how many fields it changed. It comes before anything is stored.
func cutSecrets(e *event.Event) (n int) {
	texts := [...]*string{
		&e.Message, &e.ID, &e.SessionID, &e.ResourceName, &e.ResourceTitle, &e.Ticket, &e.ProcessExecutable, &e.ProcessCommandLine,
	}
	for i, p := range texts {
		if len(*p) < leastSecret {
			continue
		}
		if clean, found := withoutSecrets(*p); found {
			*p = clean
			e.Mark("secret:" + event.Fields[secretFields[i]].Name)
			n++
		}
	}
	for i := range e.Labels {
		l := &e.Labels[i]
		clean, found := withoutSecrets(l.Value)
		if isSecretName(l.Key) && l.Value != "" && l.Value != secretCut {
			clean, found = secretCut, true
		}
		if found {
			l.Value = clean
			e.Mark("secret:labels")
			n++
		}
	}
	return n
}

// leastSecret is the length of the shortest text with a secret in it: jwt=x.
const leastSecret = 5

// secretFields are the texts that people or programs write freely, in the order
// in which cutSecrets looks at them.
var secretFields = [...]int{
	event.FMessage, event.FID, event.FSessionID, event.FResourceName, event.FResourceTitle, event.FTicket,
	event.FProcessExecutable, event.FProcessCommandLine,
}

// withoutSecrets returns s with each secret replaced. It reads s once and looks
// closer only where two bytes say that a pattern may begin; most texts come back
// as they are, without an allocation.
func withoutSecrets(s string) (string, bool) {
	var out []byte
	done := 0 // s[:done] is in out
	for i := 0; i < len(s); i++ {
		if secretAnchor[s[i]] == noAnchor {
			continue
		}
		from, to := secretAt(s, i)
		if from < done || to <= from || strings.HasPrefix(s[from:], secretCut) {
			continue
		}
		out = append(out, s[done:from]...)
		out = append(out, secretCut...)
		done = to
		i = to - 1
	}
	if done == 0 {
		return s, false
	}
	return string(append(out, s[done:]...)), true
}

// What may be at a byte. Tokens are looked for at the rarest byte of how they
// begin.
const (
	noAnchor = iota
	anchorAssign
	anchorDash
	anchorToken
)

var secretAnchor = func() (t [256]uint8) {
	t['='], t[':'] = anchorAssign, anchorAssign
	for _, shape := range tokenShapes {
		t[shape.prefix[shape.rare]] = anchorToken
	}
	t['-'] = anchorDash
	return t
}()

// secretAt returns the secret that the pattern at s[i] shows, or 0, 0.
func secretAt(s string, i int) (from, to int) {
	switch secretAnchor[s[i]] {
	case anchorAssign:
		if strings.HasPrefix(s[i:], "://") {
			return userinfo(s, i+3)
		}
		// Names of secrets end in a letter; this spares the colons of times.
		if i > 0 && (isLetter(s[i-1]) || s[i-1] == '"' || s[i-1] == '\'' || s[i-1] == ' ' || s[i-1] == '\\') {
			return assigned(s, i)
		}
		return 0, 0
	case anchorDash:
		if i == 0 || s[i-1] == ' ' || s[i-1] == '\t' {
			if strings.HasPrefix(s[i:], "-----BEGIN ") {
				return privateKey(s, i)
			}
			return option(s, i)
		}
		if strings.HasPrefix(s[i:], "-----BEGIN ") {
			return privateKey(s, i)
		}
	}
	return knownToken(s, i)
}

// assigned: password=x, "token": "x", Authorization: Bearer x, api_key:x.
func assigned(s string, i int) (from, to int) {
	end := i
	for end > 0 && (s[end-1] == ' ' || s[end-1] == '"' || s[end-1] == '\'' || s[end-1] == '\\') && i-end < 4 {
		end--
	}
	start := end
	for start > 0 && isNameByte(s[start-1]) && end-start < 64 {
		start--
	}
	name := s[start:end]
	header := strings.EqualFold(name, "authorization") || strings.EqualFold(name, "proxy-authorization")
	cookie := strings.EqualFold(name, "cookie") || strings.EqualFold(name, "set-cookie")
	if !header && !cookie && !isSecretName(name) {
		return 0, 0
	}
	if s[i] == ':' && end == i && namesProgram(s, start, i) {
		return 0, 0
	}
	from = i + 1
	for from < len(s) && (s[from] == ' ' || s[from] == '\t' || s[from] == '=') {
		from++
	}
	if strings.EqualFold(name, "pwd") && from < len(s) && (s[from] == '/' || s[from] == '~') {
		return 0, 0 // a working directory, as sudo and shells name it
	}
	if s[i] == ':' && from == i+1 && from < len(s) && s[from] == ':' {
		return 0, 0 // "token::" is a name in a program
	}
	if header { // the scheme stays
		if word, rest := cutWord(s[from:]); isScheme(word) && rest != "" {
			from = len(s) - len(rest)
		}
	}
	if cookie {
		return from, lineEnd(s, from)
	}
	return valueAt(s, from)
}

// namesProgram says whether s[start:colon] is a program or a file rather than
// what holds a password: pam_unix(chpasswd:chauthtok), /etc/passwd: not found,
// "passwd: password changed for …".
func namesProgram(s string, start, colon int) bool {
	switch s[start:colon] {
	case "chpasswd", "gpasswd", "smbpasswd", "yppasswd", "kpasswd", "htpasswd", "ldappasswd", "vncpasswd":
		return true
	case "passwd":
		if start > 0 && (s[start-1] == '/' || s[start-1] == '(') || strings.HasPrefix(s[colon+1:], "chauthtok") {
			return true
		}
		// A program says a sentence, a setting holds one word.
		_, to := valueAt(s, min(colon+2, len(s)))
		return strings.HasPrefix(s[colon:], ": ") && to+1 < len(s) && s[to] == ' ' && isLetter(s[to+1]) && !assignsNext(s[to+1:])
	}
	return false
}

// assignsNext says whether s begins with a further name and its value.
func assignsNext(s string) bool {
	i := 0
	for i < len(s) && isNameByte(s[i]) {
		i++
	}
	return i < len(s) && (s[i] == '=' || s[i] == ':')
}

// valueAt returns the bounds of a value: a text in quotes, or up to the next
// separator.
func valueAt(s string, from int) (int, int) {
	if from < len(s) && s[from] == '\\' && from+1 < len(s) && s[from+1] == '"' {
		from++
	}
	if from < len(s) && (s[from] == '"' || s[from] == '\'') {
		quote := s[from]
		for to := from + 1; to < len(s); to++ {
			if s[to] == quote {
				return from + 1, trimBackslash(s, from+1, to)
			}
		}
		return from + 1, len(s)
	}
	to := from
	for to < len(s) && !strings.ContainsRune(" \t\r\n\"'&;,<>)]}|", rune(s[to])) {
		to++
	}
	return from, to
}

func trimBackslash(s string, from, to int) int {
	if to > from && s[to-1] == '\\' {
		return to - 1
	}
	return to
}

// option: --password x, --api-key x, -p x, -pX as mysql takes it, -u user:x.
// s[i] is its first dash.
func option(s string, i int) (from, to int) {
	start := i + 1
	if start < len(s) && s[start] == '-' {
		start++
	}
	end := start
	for end < len(s) && isNameByte(s[end]) {
		end++
	}
	name := s[start:end]
	short := start == i+1
	switch {
	case short && strings.HasPrefix(s[start:], "p") && takesPassword(s[:i]):
		if end-start > 1 { // -pX
			return start + 1, wordEnd(s, start+1)
		}
	case short && name == "u" && strings.Contains(s[:i], "curl"):
		from, to = nextWord(s, end)
		if colon := strings.IndexByte(s[from:to], ':'); colon >= 0 {
			return from + colon + 1, to
		}
		return 0, 0
	case !isSecretName(name):
		return 0, 0
	}
	return nextWord(s, end)
}

// takesPassword says whether -p means a password: for most programs it is a
// port, a path or a process.
func takesPassword(before string) bool {
	for _, program := range [...]string{"mysql", "mariadb", "sshpass", "mongo", "smbclient", "rdesktop", "xfreerdp", "docker login", "podman login", "htpasswd", "ldapsearch", "sqlcmd", "7z"} {
		if strings.Contains(before, program) {
			return true
		}
	}
	return false
}

// nextWord returns the value that follows an option's name.
func nextWord(s string, i int) (from, to int) {
	if i >= len(s) || (s[i] != ' ' && s[i] != '\t') {
		return 0, 0
	}
	for i < len(s) && (s[i] == ' ' || s[i] == '\t') {
		i++
	}
	if i >= len(s) || s[i] == '-' {
		return 0, 0
	}
	return valueAt(s, i)
}

// userinfo: https://user:x@host.
func userinfo(s string, from int) (int, int) {
	end := from
	for end < len(s) && !strings.ContainsRune(" /?#\"'<>", rune(s[end])) {
		end++
	}
	at := strings.LastIndexByte(s[from:end], '@')
	if at < 0 {
		return 0, 0
	}
	colon := strings.IndexByte(s[from:from+at], ':')
	if colon < 0 {
		return 0, 0
	}
	return from + colon + 1, from + at
}

// privateKey: -----BEGIN … PRIVATE KEY----- up to its end, or the rest.
func privateKey(s string, i int) (from, to int) {
	const tail = "PRIVATE KEY-----"
	head := strings.Index(s[i:], tail)
	if head < 0 || head > 64 {
		return 0, 0
	}
	if end := strings.Index(s[i+head+len(tail):], tail); end >= 0 {
		return i, i + head + len(tail) + end + len(tail)
	}
	return i, len(s)
}

// tokenShape is a token that shows what it is by how it begins.
type tokenShape struct {
	prefix string
	rare   int // the byte of the prefix at which it is looked for
	least  int // bytes after the prefix
	inside func(c byte) bool
}

var tokenShapes = []tokenShape{
	{"AKIA", 2, 16, isUpperDigit},
	{"ASIA", 2, 16, isUpperDigit},
	{"AIza", 1, 30, isTokenByte},
	{"eyJ", 2, 20, isTokenByte}, // a JWT: {" in base64, three parts with points
	{"SG.", 1, 40, isTokenByte},
	{"ghp_", 3, 30, isTokenByte},
	{"gho_", 3, 30, isTokenByte},
	{"ghs_", 3, 30, isTokenByte},
	{"github_pat_", 6, 30, isTokenByte},
	{"sk_live_", 2, 16, isTokenByte},
	{"glpat-", 5, 20, isTokenByte},
	{"xoxb-", 4, 20, isTokenByte},
	{"xoxp-", 4, 20, isTokenByte},
	{"xoxa-", 4, 20, isTokenByte},
	{"sk-", 2, 20, isTokenByte},
}

// knownToken: a token's own shape, wherever it stands. s[i] is its rare byte.
func knownToken(s string, i int) (from, to int) {
	for k := range tokenShapes {
		shape := &tokenShapes[k]
		from = i - shape.rare
		if s[i] != shape.prefix[shape.rare] || from < 0 || !strings.HasPrefix(s[from:], shape.prefix) {
			continue
		}
		if from > 0 && isNameByte(s[from-1]) {
			continue
		}
		to = from + len(shape.prefix)
		for to < len(s) && shape.inside(s[to]) {
			to++
		}
		if to-from-len(shape.prefix) < shape.least {
			continue
		}
		if shape.prefix == "eyJ" && strings.Count(s[from:to], ".") < 2 {
			continue
		}
		return from, to
	}
	return 0, 0
}

// isSecretName says whether what bears the name is a secret: password, token,
// api_key, client-secret, X-Auth-Token … in any case, with any separators.
func isSecretName(name string) bool {
	if len(name) < 3 || len(name) > 64 {
		return false
	}
	var buf [64]byte
	n := 0
	for i := range len(name) {
		c := name[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != '_' && c != '-' && c != '.' {
			buf[n] = c
			n++
		}
	}
	word := buf[:n]
	for i := range secretWords {
		w := &secretWords[i]
		if len(word) < len(w.text) {
			continue
		}
		if string(word[len(word)-len(w.text):]) == w.text && (!w.whole || len(word) == len(w.text)) {
			return true
		}
	}
	return false
}

// secretWords end the name of a secret. Those that end harmless words as well
// count only as the whole name.
var secretWords = []struct {
	text  string
	whole bool
}{
	{"password", false}, {"passwd", false}, {"passphrase", false}, {"passcode", false}, {"wachtwoord", false},
	{"pwd", true}, {"dbpwd", true}, {"pgpwd", true}, {"userpwd", true}, {"mysqlpwd", true}, {"pass", true}, {"dbpass", true}, {"userpass", true},
	{"secret", false}, {"secretkey", false}, {"clientsecret", false}, {"secretaccesskey", false},
	{"token", false}, {"accesstoken", false}, {"sessiontoken", false}, {"jwt", true},
	{"apikey", false}, {"accesskey", false}, {"privatekey", false}, {"encryptionkey", false}, {"authkey", false}, {"accountkey", false},
	{"sharedaccesskey", false}, {"credential", false}, {"credentials", false},
	{"signature", true}, {"sig", true}, {"xamzsignature", true}, {"xapikey", true}, {"otp", true},
}

func isScheme(word string) bool {
	switch strings.ToLower(word) {
	case "bearer", "basic", "digest", "negotiate", "token", "apikey", "ntlm":
		return true
	}
	return false
}

func wordEnd(s string, i int) int {
	for i < len(s) && s[i] != ' ' && s[i] != '\t' {
		i++
	}
	return i
}

func lineEnd(s string, i int) int {
	if end := strings.IndexAny(s[i:], "\r\n\"'"); end >= 0 {
		return i + end
	}
	return len(s)
}

func isNameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || isDigit(c) || c == '_' || c == '-' || c == '.'
}

func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

func isUpperDigit(c byte) bool { return c >= 'A' && c <= 'Z' || isDigit(c) }

func isTokenByte(c byte) bool { return isNameByte(c) || c == '+' || c == '/' || c == '=' }
