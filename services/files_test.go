package services

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// read gives a file of the repository as text.
func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// npmLock is what matters of package-lock.json.
type npmLock struct {
	Packages map[string]struct {
		Version, Resolved, Integrity string
		Dependencies                 map[string]string
	}
}

// lockComplaints says what would make npm ci depend on a host, on the day, or on
// trust.
func lockComplaints(manifest map[string]string, lock npmLock) (complaints []string) {
	exact := regexp.MustCompile(`^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$`)
	for name, version := range manifest {
		if !exact.MatchString(version) {
			complaints = append(complaints, "package.json: "+name+" "+version+": name one version, no range")
		}
		if got := lock.Packages["node_modules/"+name].Version; got != version {
			complaints = append(complaints, "package-lock.json: "+name+" is "+got+", package.json says "+version+": run npm install --package-lock-only")
		}
	}
	for name, p := range lock.Packages {
		if p.Resolved != "" {
			complaints = append(complaints, "package-lock.json: "+name+" names the host it came from: run npm install --package-lock-only with .npmrc in place")
		}
		if name != "" && !strings.HasPrefix(p.Integrity, "sha512-") {
			complaints = append(complaints, "package-lock.json: "+name+" has no SHA-512 checksum")
		}
	}
	slices.Sort(complaints)
	return complaints
}

func TestLibraryIsPinnedByVersionAndChecksum(t *testing.T) {
	var manifest struct{ Dependencies map[string]string }
	var lock npmLock
	for name, into := range map[string]any{"package.json": &manifest, "package-lock.json": &lock} {
		if err := json.Unmarshal([]byte(read(t, name)), into); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	complain(t, lockComplaints(manifest.Dependencies, lock))

	version := manifest.Dependencies["@chdb/lib-linux-x64-gnu"]
	line := regexp.MustCompile(`libraryVersion\s*=\s*"([^"]+)"`).FindStringSubmatch(read(t, "services/store/library.go"))
	if line == nil || !strings.HasPrefix(version, line[1]) {
		t.Errorf("npm brings the ClickHouse library %q; services/store/library.go accepts %q", version, line)
	}
	line = regexp.MustCompile(`(?m)^version=(.+)$`).FindStringSubmatch(read(t, ".ci/library"))
	if line == nil || !strings.HasPrefix(version, line[1]) {
		t.Errorf("npm brings the ClickHouse library %q; .ci/library tells people of %q", version, line)
	}
}

func TestLockCheckRefusesHostsRangesAndMissingChecksums(t *testing.T) {
	f := func(manifest, lock, want string) {
		t.Helper()
		var m struct{ Dependencies map[string]string }
		var l npmLock
		if err := json.Unmarshal([]byte(manifest), &m); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(lock), &l); err != nil {
			t.Fatal(err)
		}
		oneComplaint(t, lockComplaints(m.Dependencies, l), want)
	}
	f(`{"dependencies": {"a": "1.2.3-stable.1"}}`, `{"packages": {"": {}, "node_modules/a": {"version": "1.2.3-stable.1", "integrity": "sha512-x"}}}`, "")
	f(`{"dependencies": {"a": "^1.2.3"}}`, `{"packages": {"node_modules/a": {"version": "^1.2.3", "integrity": "sha512-x"}}}`, "name one version")
	f(`{"dependencies": {"a": "1.2.3"}}`, `{"packages": {"node_modules/a": {"version": "1.2.4", "integrity": "sha512-x"}}}`, "a is 1.2.4, package.json says 1.2.3")
	f(`{"dependencies": {"a": "1.2.3"}}`, `{"packages": {"node_modules/a": {"version": "1.2.3", "integrity": "sha512-x", "resolved": "https://example.org/a.tgz"}}}`, "names the host")
	f(`{"dependencies": {"a": "1.2.3"}}`, `{"packages": {"node_modules/a": {"version": "1.2.3", "integrity": "sha1-x"}}}`, "no SHA-512")
}

func TestVersionIsInTheChangelog(t *testing.T) {
	version := strings.TrimSpace(read(t, "VERSION"))
	if !regexp.MustCompile(`^\d+\.\d+\.\d+(-[0-9a-z.]+)?$`).MatchString(version) {
		t.Fatalf("VERSION holds %q, which is no semantic version", version)
	}
	if !strings.Contains(read(t, "CHANGELOG.md"), "\n## ["+version+"]") {
		t.Errorf("CHANGELOG.md has no chapter ## [%s], the version in VERSION", version)
	}
}

// TestScriptsParse has each shell script read, not run, by the shell its first
// line names.
func TestScriptsParse(t *testing.T) {
	scripts := 0
	for _, dir := range []string{".ci", "deploy"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			text, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			first, _, _ := strings.Cut(string(text), "\n")
			if !strings.HasPrefix(first, "#!") {
				return nil
			}
			scripts++
			if info, err := d.Info(); err != nil || info.Mode().Perm()&0o111 == 0 {
				t.Errorf("%s begins with %q and is not executable: chmod +x", name, first)
			}
			shell := "sh"
			if strings.HasSuffix(first, "bash") {
				shell = "bash"
			}
			if out, err := exec.Command(shell, "-n", name).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", name, err, out)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if scripts < 4 {
		t.Errorf("%d scripts were found; there are more", scripts)
	}
}

// TestMakeListsWhatItCanDo keeps `make help` and the targets together.
func TestMakeListsWhatItCanDo(t *testing.T) {
	makefile := read(t, "Makefile")
	phony := regexp.MustCompile(`(?m)^\.PHONY: (.+)$`).FindStringSubmatch(makefile)
	if phony == nil {
		t.Fatal("the Makefile has no .PHONY line")
	}
	listed := regexp.MustCompile(`(?m)^([a-z-]+):.*## `).FindAllStringSubmatch(makefile, -1)
	var names []string
	for _, l := range listed {
		names = append(names, l[1])
		if !slices.Contains(strings.Fields(phony[1]), l[1]) {
			t.Errorf("make %s is not in .PHONY: a file of that name would stop it", l[1])
		}
	}
	for _, want := range []string{"help", "run", "build", "test", "test-long", "bench", "fuzz", "clean"} {
		if !slices.Contains(names, want) {
			t.Errorf("make help does not list %s", want)
		}
	}
	if !strings.Contains(read(t, ".ci/run"), "make test") {
		t.Error(".ci/run does not run make test")
	}
}
