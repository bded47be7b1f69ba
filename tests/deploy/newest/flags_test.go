package newest

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"

	"csi-udisk/tests/deploy/roundtrip"
)

// Flags that the sidecars of these versions know; a sidecar exits on any other.
var sidecarFlags = map[string][]string{
	"csi-provisioner": {
		"csi-address", "v", "strict-topology", "immediate-topology", "timeout", "worker-threads", "retry-interval-start",
		"retry-interval-max", "default-fstype", "extra-create-metadata", "leader-election", "leader-election-namespace",
		"kube-api-qps", "kube-api-burst",
	},
	"csi-attacher": {
		"csi-address", "v", "timeout", "worker-threads", "retry-interval-start", "retry-interval-max", "leader-election",
		"leader-election-namespace", "kube-api-qps", "kube-api-burst",
	},
	"csi-resizer": {
		"csi-address", "v", "timeout", "workers", "handle-volume-inuse-error", "retry-interval-start", "retry-interval-max",
		"leader-election", "leader-election-namespace", "kube-api-qps", "kube-api-burst",
	},
	"node-registrar": {"csi-address", "kubelet-registration-path", "v"},
}

func containers(t *testing.T, overlay string) []core.Container {
	o := load(t, overlay)
	return slices.Concat(
		o.statefulSets["csi-udisk-controller"].Spec.Template.Spec.Containers,
		o.daemonSets["csi-udisk"].Spec.Template.Spec.Containers,
	)
}

// The driver's own parser reads what the manifests give it.
func TestTheDriverUnderstandsItsFlags(t *testing.T) {
	binary := os.Getenv("CSI_UDISK_BINARY")
	if binary == "" {
		t.Fatal("CSI_UDISK_BINARY names no driver; run tests/deploy/run")
	}
	drivers := 0
	for _, overlay := range roundtrip.Names(t) {
		for _, container := range containers(t, overlay) {
			if container.Name != "csi-udisk" {
				continue
			}
			drivers++
			if len(container.Command) > 0 {
				t.Errorf("%s: the image's own entry point is hidden", overlay)
			}
			said, err := run(binary, container, append(container.Args, "--check-config"))
			if err != nil || strings.TrimSpace(said) != "the configuration is good" {
				t.Errorf("%s: %v: %s", overlay, container.Args, said)
			}
			for _, probe := range []*core.Probe{container.LivenessProbe, container.ReadinessProbe} {
				// There is no driver to ask; what counts is that the question is understood.
				said, _ := run(binary, container, probe.Exec.Command[1:])
				if probe.Exec.Command[0] != "csi-udisk" || !strings.Contains(said, "no driver answers on") {
					t.Errorf("%s: %v: %s", overlay, probe.Exec.Command, said)
				}
				endpoint := probe.Exec.Command[len(probe.Exec.Command)-1]
				if !slices.Contains(container.Args, endpoint) {
					t.Errorf("%s: the probe asks %s, which is not where the driver serves", overlay, endpoint)
				}
			}
		}
	}
	if drivers != 2*len(roundtrip.Names(t)) {
		t.Errorf("%d drivers in %v", drivers, roundtrip.Names(t))
	}
	if said, err := run(binary, core.Container{}, []string{"--check-config", "--nonsense"}); err == nil {
		t.Errorf("the parser takes anything: %s", said)
	}
}

func run(binary string, container core.Container, arguments []string) (string, error) {
	arguments = slices.Clone(arguments)
	for i := range arguments {
		arguments[i] = strings.ReplaceAll(arguments[i], "$(KUBE_NODE_NAME)", "10.9.184.108")
	}
	command := exec.Command(binary, arguments...)
	// As UK8S fills it in.
	command.Env = []string{"UCLOUD_REGION_ID=cn-bj2", "UCLOUD_API_ENDPOINT=http://api.service.ucloud.cn"}
	said, err := command.CombinedOutput()
	return string(said), err
}

func TestSidecarsUnderstandTheirFlags(t *testing.T) {
	for _, overlay := range roundtrip.Names(t) {
		for _, container := range containers(t, overlay) {
			if container.Name == "csi-udisk" {
				continue
			}
			known, ok := sidecarFlags[container.Name]
			if !ok {
				t.Errorf("%s: an unknown sidecar %s", overlay, container.Name)
			}
			for _, argument := range container.Args {
				name, _, _ := strings.Cut(strings.TrimPrefix(argument, "--"), "=")
				if !slices.Contains(known, name) {
					t.Errorf("%s: %s does not know %s", overlay, container.Name, argument)
				}
			}
		}
	}
}

// Every sidecar reaches the driver where it serves.
func TestSidecarsFindTheSocket(t *testing.T) {
	for _, overlay := range roundtrip.Names(t) {
		for _, container := range containers(t, overlay) {
			for _, argument := range container.Args {
				path, ok := strings.CutPrefix(argument, "--csi-address=")
				if !ok {
					continue
				}
				mounted := slices.ContainsFunc(container.VolumeMounts, func(mount core.VolumeMount) bool {
					return mount.MountPath == filepath.Dir(path)
				})
				if !mounted {
					t.Errorf("%s: %s does not see %s", overlay, container.Name, path)
				}
			}
		}
	}
}

// Images and their versions stand in kustomization.yaml, each with a version.
func TestEveryImageIsNamedInOnePlace(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(os.Getenv("DEPLOY"), "*", "*.yaml"))
	deeper, _ := filepath.Glob(filepath.Join(os.Getenv("DEPLOY"), "*", "*", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no manifests in %s", os.Getenv("DEPLOY"))
	}
	for _, file := range append(files, deeper...) {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(string(content), "\n") {
			if image, ok := strings.CutPrefix(strings.TrimSpace(line), "image: "); ok && strings.ContainsAny(image, ":/@") {
				t.Errorf("%s: %s", file, line)
			}
		}
	}
	for _, overlay := range roundtrip.Names(t) {
		for _, container := range containers(t, overlay) {
			_, tag, ok := strings.Cut(container.Image, ":")
			if !ok || tag == "latest" || container.ImagePullPolicy != core.PullIfNotPresent {
				t.Errorf("%s: %s runs %s", overlay, container.Name, container.Image)
			}
		}
	}
}
