package collector

import (
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/opencoc/coc/services/event"
)

// builtinSystemAccounts are accounts of machines and services, not of people:
// their names stay readable, because a rule and an analyst must see "root".
// An entry ending in * stands for all that begin so.
var builtinSystemAccounts = []string{
	// Debian and its kin, uid < 1000.
	"root", "daemon", "bin", "sys", "sync", "games", "man", "lp", "mail", "news", "uucp", "proxy", "www-data", "backup", "list", "irc",
	"gnats", "nobody", "nogroup", "systemd-*", "_*", "messagebus", "syslog", "uuidd", "tcpdump", "landscape", "pollinate", "sshd", "polkitd",
	"avahi", "avahi-autoipd", "colord", "geoclue", "rtkit", "lightdm", "gdm", "Debian-*", "dnsmasq", "ntp", "ntpd", "chrony", "tss", "dbus",
	"adm", "shutdown", "halt", "operator", "ftp", "rpc", "rpcuser", "nfsnobody", "postfix", "dovecot", "dovenull", "opendkim", "bind", "named",
	"apache", "nginx", "http", "httpd", "haproxy", "squid", "mysql", "mariadb", "postgres", "redis", "mongodb", "rabbitmq", "elasticsearch",
	"logstash", "kibana", "filebeat", "prometheus", "node_exporter", "grafana", "telegraf", "influxdb", "zabbix", "nagios", "munin",
	"clickhouse", "nats", "coc", "docker", "containerd", "kube", "etcd", "git", "gitlab-runner", "jenkins", "cron", "sssd", "nslcd", "lxd",
	"cloudsdk", "snap_daemon", "fwupd-refresh", "usbmux",
	// Windows.
	"SYSTEM", "LOCAL SERVICE", "NETWORK SERVICE", `NT AUTHORITY\*`, `NT SERVICE\*`, `Window Manager\*`, `Font Driver Host\*`,
}

// accountList tells system accounts from people.
type accountList struct {
	names    map[string]bool
	prefixes []string
}

func newAccountList(more []string) *accountList {
	l := &accountList{names: make(map[string]bool)}
	for _, list := range [][]string{builtinSystemAccounts, more} {
		for _, name := range list {
			if prefix, ok := strings.CutSuffix(name, "*"); ok {
				l.prefixes = append(l.prefixes, prefix)
			} else {
				l.names[name] = true
			}
		}
	}
	return l
}

func (l *accountList) has(name string) bool {
	if l.names[name] {
		return true
	}
	for _, p := range l.prefixes {
		if len(name) > len(p) && strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// person is a name and what stands for it in texts.
type person struct{ name, short string }

// wordFields hold words that rules go by. A name is replaced in them only when
// it cannot be such a word: otherwise an account called "login" could change
// what its events are.
var wordFields = [...]int{
	event.FAction, event.FServiceName, event.FServiceVersion, event.FDatacenter, event.FResourceType,
	event.FTenantTier, event.FUserType, event.FSourceCountry,
}

// replaceNames takes the people's names out of every text of e that is kept,
// wherever they stand as a word.
// tenant.id stays as it is, because intake, rights and keys hang on it; an event
// whose tenant.id holds a name is marked name:tenant.id.
func replaceNames(e *event.Event, people []person) {
	for _, p := range people {
		for _, text := range [...]*string{
			&e.Message, &e.ID, &e.SessionID, &e.Ticket, &e.HostName, &e.ResourceName, &e.ResourceTitle,
			&e.ProcessName, &e.ProcessParent, &e.ProcessExecutable, &e.ProcessCommandLine,
		} {
			replaceIn(text, p)
		}
		if distinctive(p.name) {
			for _, f := range wordFields {
				replaceIn(e.Text(f), p)
			}
			if _, held := replaceName(e.TenantID, p.name, p.short); held {
				e.Mark("name:tenant.id")
			}
		}
		for i := range e.Labels {
			replaceIn(&e.Labels[i].Value, p)
		}
		replaceKeys(e, p)
	}
}

// replaceKeys does the same for the keys of labels, which have to stay sorted
// and distinct.
func replaceKeys(e *event.Event, p person) {
	for i := 0; i < len(e.Labels); i++ {
		if len(e.Labels[i].Key) < len(p.name) {
			continue
		}
		key, found := replaceName(e.Labels[i].Key, p.name, p.short)
		if !found {
			continue
		}
		value := e.Labels[i].Value
		e.Labels = append(e.Labels[:i], e.Labels[i+1:]...)
		e.SetLabel(event.CutText(key, event.LimitLabelKey), value)
		i = -1 // the order changed; a replaced key holds no name any more
	}
}

func replaceIn(text *string, p person) {
	if len(*text) < len(p.name) {
		return
	}
	if s, found := replaceName(*text, p.name, p.short); found {
		*text = s
	}
}

// replaceName puts short in the place of every occurrence of name in s that is
// a word of its own, in whatever case. A word ends where neither a letter nor a
// digit goes on, so jan is found in /home/jan/x, jan.jansen and backup_jan, and
// not in january. A name shorter than minName is replaced where it is all of s.
func replaceName(s, name, short string) (string, bool) {
	if len(name) < minName {
		if strings.EqualFold(s, name) {
			return short, true
		}
		return s, false
	}
	at := indexName(s, name, 0)
	if at < 0 {
		return s, false
	}
	var b strings.Builder
	b.Grow(len(s) + len(short))
	done := 0
	for at >= 0 {
		b.WriteString(s[done:at])
		b.WriteString(short)
		done = at + len(name)
		at = indexName(s, name, done)
	}
	b.WriteString(s[done:])
	return b.String(), true
}

// indexName finds the first occurrence of name as a word in s[from:], or -1.
// Occurrences have the same number of bytes as name, which holds for the two
// cases of nearly every letter.
func indexName(s, name string, from int) int {
	for {
		at := indexFold(s, name, from)
		if at < 0 {
			return -1
		}
		if isWord(s, at, at+len(name)) {
			return at
		}
		from = at + 1
	}
}

// indexFold finds name in s[from:] without regard to case.
func indexFold(s, name string, from int) int {
	c := name[0]
	if c >= utf8.RuneSelf {
		for i := from; i+len(name) <= len(s); i++ {
			if utf8.RuneStart(s[i]) && strings.EqualFold(s[i:i+len(name)], name) {
				return i
			}
		}
		return -1
	}
	other := c
	if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
		other = c ^ 0x20
	}
	for i := from; i+len(name) <= len(s); i++ {
		if other == c {
			next := strings.IndexByte(s[i:], c)
			if next < 0 {
				return -1
			}
			i += next
		} else if s[i] != c && s[i] != other {
			continue
		}
		if i+len(name) > len(s) {
			return -1
		}
		if strings.EqualFold(s[i:i+len(name)], name) {
			return i
		}
	}
	return -1
}

// isWord says whether s[from:to] is not part of a longer word.
func isWord(s string, from, to int) bool {
	first, _ := utf8.DecodeRuneInString(s[from:])
	if from > 0 && wordRune(first) {
		if before, _ := utf8.DecodeLastRuneInString(s[:from]); wordRune(before) {
			return false
		}
	}
	last, _ := utf8.DecodeLastRuneInString(s[:to])
	if to < len(s) && wordRune(last) {
		if after, _ := utf8.DecodeRuneInString(s[to:]); wordRune(after) {
			return false
		}
	}
	return true
}

func wordRune(r rune) bool {
	if r < utf8.RuneSelf {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
	}
	return r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsDigit(r))
}

// distinctive says whether a name cannot be a word of a vocabulary: those are
// of letters, digits, - and _.
func distinctive(name string) bool {
	letter := false
	plain := true
	for _, r := range name {
		letter = letter || unicode.IsLetter(r)
		if r >= utf8.RuneSelf || !wordRune(r) && r != '-' && r != '_' {
			plain = false
		}
	}
	return letter && !plain
}

// plainName says whether a name is written in one way only: letters, digits and
// what a URL leaves as it is.
func plainName(name string) bool {
	for i := range len(name) {
		if c := name[i]; c >= utf8.RuneSelf || !isNameByte(c) {
			return false
		}
	}
	return true
}

// aliases returns the further forms in which an account's name is written: the
// account of DOMAIN\account, the part before the @ of an address when it has a
// shape that only names have, and each as it stands in the path and in the query
// of a URL.
func aliases(name string) []string {
	forms := []string{name}
	if _, account, ok := cutLast(name, `\`); ok && len(account) > minName {
		forms = append(forms, account)
	}
	if local, _, ok := strings.Cut(name, "@"); ok && len(local) > 3 && strings.ContainsAny(local, "._-") {
		forms = append(forms, local)
	}
	for _, form := range forms {
		for _, written := range [...]string{url.QueryEscape(form), url.PathEscape(form)} {
			if !slices.Contains(forms, written) {
				forms = append(forms, written)
			}
		}
	}
	return forms[1:]
}
