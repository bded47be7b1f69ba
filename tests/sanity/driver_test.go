package sanity

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// process is a driver or sandbox under test. Its log is shown when the test fails.
type process struct {
	name string
	cmd  *exec.Cmd
	log  bytes.Buffer
	done chan error
}

func binary(t *testing.T) string {
	t.Helper()
	path := os.Getenv("CSI_UDISK_BINARY")
	if path == "" {
		path = "../../target/debug/csi-udisk"
	}
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("build the driver first (cargo build), or name it in CSI_UDISK_BINARY: %v", err)
	}
	return path
}

// start runs the binary until the test ends; it dies with the test process.
func start(t *testing.T, name string, environment []string, arguments ...string) *process {
	t.Helper()
	p := &process{name: name, cmd: exec.Command(binary(t), arguments...), done: make(chan error, 1)}
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin"}, environment...)
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.done <- p.cmd.Wait() }()
	t.Cleanup(func() { p.stop(t) })
	return p
}

func (p *process) stop(t *testing.T) {
	t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-p.done:
		if err != nil {
			t.Errorf("%s did not stop cleanly: %v", p.name, err)
		}
	case <-time.After(30 * time.Second):
		_ = p.cmd.Process.Kill()
		t.Errorf("%s did not stop within 30 s of SIGTERM", p.name)
	}
	if t.Failed() {
		t.Logf("log of %s:\n%s", p.name, tail(p.log.String(), 300))
	}
}

func tail(text string, lines int) string {
	all := strings.Split(text, "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return strings.Join(all, "\n")
}

// waitFor returns when the path exists, or fails the test.
func (p *process) waitFor(t *testing.T, path string) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		if _, err := os.Stat(path); err == nil {
			return
		}
		select {
		case err := <-p.done:
			p.done <- err
			t.Fatalf("%s ended (%v) before %s was there:\n%s", p.name, err, path, p.log.String())
		case <-deadline:
			t.Fatalf("%s does not make %s:\n%s", p.name, path, p.log.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// environment reads NAME=value lines, as the sandbox writes them for drivers in processes of their own.
func environment(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

// sandbox is a simulated cloud with the driver's two services in processes of their own.
type sandbox struct {
	dir, controller, node string
}

func startSandbox(t *testing.T) sandbox {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("the node service needs root for loop devices and mounts")
	}
	dir := filepath.Join(t.TempDir(), "s")
	cloud := start(t, "sandbox", nil, "sandbox", "--serve", "--cloud-only", "--latency", "none", "--dir", dir)
	cloud.waitFor(t, filepath.Join(dir, "cloud.url"))
	s := sandbox{dir: dir, controller: filepath.Join(dir, "c.sock"), node: filepath.Join(dir, "n.sock")}
	for _, role := range []struct{ mode, socket string }{{"controller", s.controller}, {"node", s.node}} {
		driver := start(t, role.mode, environment(t, filepath.Join(dir, role.mode+".env")),
			"--mode", role.mode, "--endpoint", "unix://"+role.socket)
		driver.waitFor(t, role.socket)
	}
	return s
}

func describe(outcomes []outcome) string {
	var text strings.Builder
	for _, o := range outcomes {
		fmt.Fprintf(&text, "  %s: %s\n    %s\n", o.State, o.Name, strings.ReplaceAll(o.Message, "\n", "\n    "))
	}
	return text.String()
}
