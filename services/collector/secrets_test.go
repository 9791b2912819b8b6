package collector

import (
	"strings"
	"testing"

	"github.com/opencoc/coc/services/event"
)

func TestSecretsAreCut(t *testing.T) {
	f := func(in, want string) {
		t.Helper()
		got, found := withoutSecrets(in)
		if got != want || !found {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
		if again, _ := withoutSecrets(got); again != got {
			t.Errorf("%q cut again became %q", got, again)
		}
	}
	f("password=geheim", "password=[secret]")
	f("PGPASSWORD=geheim psql -h db", "PGPASSWORD=[secret] psql -h db")
	f("--password geheim --user x", "--password [secret] --user x")
	f("run --password=geheim", "run --password=[secret]")
	f("run --api-key 'a b c' x", "run --api-key '[secret]' x")
	f("mysql -u root -pgeheim db", "mysql -u root -p[secret] db")
	f("sshpass -p geheim ssh x", "sshpass -p [secret] ssh x")
	f("curl -u jan:geheim https://x", "curl -u jan:[secret] https://x")
	f("GET /a?token=abc123&x=1 HTTP/1.1", "GET /a?token=[secret]&x=1 HTTP/1.1")
	f("GET /a?X-Amz-Signature=abc123&x=1", "GET /a?X-Amz-Signature=[secret]&x=1")
	f("Authorization: Bearer abc.def", "Authorization: Bearer [secret]")
	f("-H 'authorization: Basic dXNlcjpw' x", "-H 'authorization: Basic [secret]' x")
	f("Cookie: a=b; c=d\nHost: x", "Cookie: [secret]\nHost: x")
	f(`{"password":"ge heim","a":1}`, `{"password":"[secret]","a":1}`)
	f(`{\"client_secret\":\"geheim\"}`, `{\"client_secret\":\"[secret]\"}`)
	f("https://jan:geheim@host/x", "https://jan:[secret]@host/x")
	f("postgres://jan:ge:heim@host/x", "postgres://jan:[secret]@host/x")
	f("key AKIAIOSFODNN7EXAMPLE here", "key [secret] here")
	f("aws_secret_access_key = wJalrXUtnFEMI", "aws_secret_access_key = [secret]")
	f("a eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-def b", "a [secret] b")
	f("ghp_012345678901234567890123456789abcd", "[secret]")
	f("x -----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY----- y", "x [secret] y")
	f("-----BEGIN PRIVATE KEY-----\ncut off", "[secret]")
	f("Wachtwoord: geheim", "Wachtwoord: [secret]")
	f("X-Api-Key: 123456", "X-Api-Key: [secret]")
	f("api_key=1 apikey=2", "api_key=[secret] apikey=[secret]")
	f("pwd=geheim", "pwd=[secret]")
	f("passwd: geheim", "passwd: [secret]")
	f("passwd:geheim", "passwd:[secret]")
	f("db_passwd: geheim", "db_passwd: [secret]")
	f("user: jan passwd: geheim host: db", "user: jan passwd: [secret] host: db")
}

func TestHarmlessTextsStay(t *testing.T) {
	f := func(in string) {
		t.Helper()
		if got, found := withoutSecrets(in); found || got != in {
			t.Errorf("%q became %q", in, got)
		}
	}
	f("")
	f("Failed password for root from 10.0.0.1 port 22 ssh2")
	f("Accepted publickey for jan from 10.0.0.1 port 22 ssh2: RSA SHA256:Kl8kPGZrTiz7g4FO1hyqHdsSBBb5Fge6NWOobN03XJg")
	f("ubuntu : TTY=pts/0 ; PWD=/home/ubuntu ; USER=root ; COMMAND=/usr/bin/vim x")
	f("ssh -p 22 host; mkdir -p /a/b; ps -p 1")
	f("user=jan id=5 monkey=1 key=value keyboard=nl")
	f("http://host:8080/a@b?x=1")
	f("https://host/x:y@z")
	f("a - b -- c --help")
	f("std::token::x")
	f("chpasswd[12]: pam_unix(chpasswd:chauthtok): password changed for jan")
	f("passwd: password changed for jan")
	f("Mar 27 13:06:56 ip-10-77-20-248 chpasswd[1]: pam_unix(chpasswd:chauthtok): password changed for jan")
	f("passwd[77]: pam_unix(passwd:chauthtok): password changed for jan")
	f("cat: /etc/passwd: not found")
	f("eyJ")
	f("AKIA")
	f("password")
	f("password=")
}

func TestSecretsInEveryFreeFieldAreMarked(t *testing.T) {
	e := event.Event{
		Message: "token=abc", ProcessCommandLine: "x --password abc", ResourceTitle: "pwd: abc", ResourceName: "/a?api_key=abc", ID: "jwt=abc",
		SessionID: "secret=abcd", Ticket: "pass=abcd", ProcessExecutable: "/x?token=abc",
		Labels: []event.Label{{Key: "url", Value: "https://a:abc@b/"}, {Key: "x-auth-token", Value: "abc"}},
	}
	if n := cutSecrets(&e); n != 10 {
		t.Errorf("%d fields changed, want 10", n)
	}
	if text := string(event.AppendJSON(nil, &e)); strings.Contains(text, "abc") {
		t.Errorf("a secret stayed: %s", text)
	}
	for _, want := range []string{"secret:message", "secret:process.command_line", "secret:labels"} {
		if !strings.Contains(e.Marks, want) {
			t.Errorf("marks %q, want %s", e.Marks, want)
		}
	}
}

func TestTextsWithoutSecretsCostNoAllocation(t *testing.T) {
	line := "Mar 27 13:06:56 web1 sshd[1291]: Failed password for invalid user admin from 185.220.101.5 port 4242 ssh2"
	if n := testing.AllocsPerRun(100, func() { withoutSecrets(line) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkWithoutSecrets(b *testing.B) {
	line := strings.Repeat("Mar 27 13:06:56 web1 app[1291]: window opened in 132 ms, path=/a/b/c user: x ", 4)
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		withoutSecrets(line)
	}
}

func FuzzWithoutSecrets(f *testing.F) {
	for _, s := range []string{"password=x", "--token ", "https://a:b@c", "-----BEGIN PRIVATE KEY-----", "eyJ", `\"pwd\":\"`, "mysql -p", "curl -u a:b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, found := withoutSecrets(s)
		if !found && got != s {
			t.Fatal("changed without saying so")
		}
	})
}
