package collector

import "strings"

// readAccounts understands the tools that keep accounts and groups: useradd,
// userdel, usermod, passwd, groupadd and their kin.
func readAccounts(d *draft, msg string) bool {
	for i := range accountStarts {
		s := &accountStarts[i]
		if rest, ok := strings.CutPrefix(msg, s.prefix); ok && s.read(d, rest) {
			return true
		}
	}
	return false
}

var accountStarts = []struct {
	prefix string
	read   func(d *draft, rest string) bool
}{
	{"new user: ", func(d *draft, rest string) bool {
		d.account("user_created", success, word(rest, "name="))
		d.label("uid", word(rest, "UID="))
		d.label("shell", word(rest, "shell="))
		d.label("home", word(rest, "home="))
		return true
	}},
	{"failed adding user ", func(d *draft, rest string) bool {
		d.account("user_created", failure, quoted(rest))
		return true
	}},
	{"new group: ", func(d *draft, rest string) bool {
		d.group("group_created", success, word(rest, "name="))
		d.label("gid", word(rest, "GID="))
		return true
	}},
	{"group added to ", func(d *draft, rest string) bool {
		d.group("group_detail", success, word(rest, "name="))
		return true
	}},
	{"delete user ", func(d *draft, rest string) bool {
		d.account("user_deleted", success, quoted(rest))
		return true
	}},
	{"failed deleting user ", func(d *draft, rest string) bool {
		d.account("user_deleted", failure, quoted(rest))
		return true
	}},
	{"removed group ", func(d *draft, rest string) bool {
		name := quoted(rest)
		d.group("group_deleted", success, name)
		if _, owner, ok := strings.Cut(rest, " owned by "); ok {
			d.person(quoted(owner))
		}
		return true
	}},
	{"removed shadow group ", func(d *draft, rest string) bool {
		d.group("group_detail", success, quoted(rest))
		return true
	}},
	{"add ", func(d *draft, rest string) bool { return d.member("group_member_added", rest, " to ") }},
	{"delete ", func(d *draft, rest string) bool { return d.member("group_member_removed", rest, " from ") }},
	{"user ", func(d *draft, rest string) bool { // gpasswd: "jan added by root to group sudo"
		for _, m := range [...]struct{ did, to, action string }{
			{" added by ", " to group ", "group_member_added"}, {" removed by ", " from group ", "group_member_removed"},
		} {
			user, rest, ok1 := strings.Cut(rest, m.did)
			by, group, ok2 := strings.Cut(rest, m.to)
			if ok1 && ok2 {
				d.account(m.action, success, user)
				d.label("group", group)
				d.label("by", by)
				d.person(by)
				return true
			}
		}
		return false
	}},
	{"change user ", func(d *draft, rest string) bool {
		d.account("user_changed", success, quoted(rest))
		if _, what, ok := strings.Cut(strings.TrimPrefix(rest, "'"), "' "); ok {
			what, _ = cutWord(what)
			d.label("changed", what)
		}
		return true
	}},
	{"changed password expiry for ", func(d *draft, rest string) bool {
		d.account("user_changed", success, rest)
		d.label("changed", "password expiry")
		return true
	}},
	{"changed user ", func(d *draft, rest string) bool {
		d.account("user_changed", success, quoted(rest))
		return true
	}},
	{"password for ", func(d *draft, rest string) bool {
		name, _, ok := between("x"+rest, "x", " changed by ")
		if !ok {
			return false
		}
		d.account("password_changed", success, quoted(name))
		_, by, _ := cutLast(rest, " changed by ")
		d.label("by", quoted(by))
		d.person(quoted(by))
		return true
	}},
}

func (d *draft) account(action, outcome, name string) {
	d.what(kindUser, action, outcome)
	d.user(name)
}

// group is about a group; by custom it often bears its user's name.
func (d *draft) group(action, outcome, name string) {
	d.what(kindUser, action, outcome)
	d.label("group", name)
	d.person(name)
}

// member: "'x' to group 'sudo'", "'x' from shadow group 'sudo'". The shadow
// line repeats the other one.
func (d *draft) member(action, rest, sep string) bool {
	user, group, ok := strings.Cut(rest, sep)
	if !ok {
		return false
	}
	shadow := strings.HasPrefix(group, "shadow ")
	if _, name, is := strings.Cut(group, "group "); is {
		d.account(action, success, quoted(user))
		d.label("group", quoted(name))
		if shadow {
			d.Action = "group_detail"
		}
		return true
	}
	return false
}

// quoted returns what stands in the quotes at the start of s, or its first
// word.
func quoted(s string) string {
	if len(s) > 1 && (s[0] == '\'' || s[0] == '"' || s[0] == '`') {
		end := strings.IndexAny(s[1:], `'"`)
		if end >= 0 {
			return s[1 : end+1]
		}
	}
	w, _ := cutWord(s)
	return strings.Trim(w, "'\"`,;")
}
