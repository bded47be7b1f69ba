package newest

import (
	"slices"
	"testing"

	core "k8s.io/api/core/v1"

	"csi-udisk/tests/deploy/roundtrip"
)

// What version 24.07.01 of the replaced plugin installs and what must stay: `apply` finds objects by these names, and
// the API server refuses other values of the immutable fields.
var installed = struct {
	accounts, clusterRoles, clusterBindings, roles, roleBindings []string
}{
	accounts: []string{"csi-udisk-controller", "csi-udisk-node"},
	clusterRoles: []string{
		"csi-udisk-provisioner", "csi-udisk-resizer", "csi-udisk-attacher", "csi-udisk-cluster-driver-registrar",
		"csi-udisk-controller", "csi-udisk-node",
	},
	clusterBindings: []string{"csi-udisk-controller", "csi-udisk-node"},
	roles:           []string{"csi-udisk-provisioner", "csi-udisk-attacher"},
	roleBindings:    []string{"csi-udisk-provsioner", "csi-udisk-attacher"},
}

func labels(role string) map[string]string {
	return map[string]string{"app": "csi-udisk", "role": role, "owner": "ucloud"}
}

func TestApplyingUpdatesWhatIsInstalledInPlace(t *testing.T) {
	for _, overlay := range roundtrip.Names(t) {
		t.Run(overlay, func(t *testing.T) {
			o := load(t, overlay)
			hold(t, "service accounts", o.accounts, installed.accounts)
			hold(t, "cluster roles", o.clusterRoles, installed.clusterRoles)
			hold(t, "cluster role bindings", o.clusterBinds, installed.clusterBindings)
			hold(t, "roles", o.roles, installed.roles)
			hold(t, "role bindings", o.bindings, installed.roleBindings)
			hold(t, "storage classes", o.classes, []string{"csi-udisk-rssd", "ssd-csi-udisk", "sata-csi-udisk"})

			service := o.services["csi-udisk-controller"]
			same(t, "the Service's namespace", service.Namespace, "kube-system")
			same(t, "the Service's selector", service.Spec.Selector, labels("controller"))

			set := o.statefulSets["csi-udisk-controller"]
			same(t, "the StatefulSet's namespace", set.Namespace, "kube-system")
			same(t, "the StatefulSet's service", set.Spec.ServiceName, "csi-udisk-controller")
			same(t, "the StatefulSet's selector", set.Spec.Selector.MatchLabels, labels("controller"))
			same(t, "the StatefulSet's pods", set.Spec.Template.Labels, labels("controller"))
			same(t, "the StatefulSet's replicas", set.Spec.Replicas, 1)
			if set.Spec.PodManagementPolicy != "" || len(set.Spec.VolumeClaimTemplates) > 0 {
				t.Error("the pod management policy and claim templates of a StatefulSet are immutable")
			}
			same(t, "the controller's account", set.Spec.Template.Spec.ServiceAccountName, "csi-udisk-controller")

			daemon := o.daemonSets["csi-udisk"]
			same(t, "the DaemonSet's namespace", daemon.Namespace, "kube-system")
			same(t, "the DaemonSet's selector", daemon.Spec.Selector.MatchLabels, labels("node"))
			same(t, "the DaemonSet's pods", daemon.Spec.Template.Labels, labels("node"))
			same(t, "the node's account", daemon.Spec.Template.Spec.ServiceAccountName, "csi-udisk-node")
			terms := daemon.Spec.Template.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
			same(t, "the hosts", terms.NodeSelectorTerms[0].MatchExpressions, []core.NodeSelectorRequirement{{
				Key: "node.uk8s.ucloud.cn/instance_type", Operator: "In", Values: []string{"uhost", "bmhost"},
			}})

			for name, binding := range o.clusterBinds {
				same(t, "the role of "+name, binding.RoleRef.Name, name)
				same(t, "the subject of "+name, binding.Subjects[0].Name, name)
			}
			// roleRef is immutable, and one of the bindings is misspelt where it is installed.
			same(t, "a roleRef", o.bindings["csi-udisk-provsioner"].RoleRef.Name, "csi-udisk-provisioner")
			same(t, "a roleRef", o.bindings["csi-udisk-attacher"].RoleRef.Name, "csi-udisk-attacher")
		})
	}
}

func TestStorageClassesAreThoseThatAreInstalled(t *testing.T) {
	want := map[string]map[string]string{
		"csi-udisk-rssd": {"type": "rssd", "fsType": "ext4"},
		"ssd-csi-udisk":  {"type": "ssd", "fsType": "ext4", "udataArkMode": "no"},
		"sata-csi-udisk": {"type": "sata", "fsType": "ext4", "udataArkMode": "no"},
	}
	for name, class := range load(t, "base").classes {
		same(t, name, class.Parameters, want[name])
		same(t, name, class.Provisioner, "udisk.csi.ucloud.cn")
		same(t, name, *class.ReclaimPolicy, "Delete")
		same(t, name, *class.VolumeBindingMode, "WaitForFirstConsumer")
		same(t, name, *class.AllowVolumeExpansion, true)
	}
}

func TestTheNodeKeepsItsPaths(t *testing.T) {
	spec := load(t, "base").daemonSets["csi-udisk"].Spec.Template.Spec
	const plugin = "/var/lib/kubelet/csi-plugins/udisk.csi.ucloud.cn"
	for _, argument := range []string{
		"--endpoint=unix://" + plugin + "/csi.sock",
		"--kubelet-registration-path=" + plugin + "/csi.sock",
		"--plugin-dir=" + plugin,
		"--drivername=udisk.csi.ucloud.cn",
	} {
		if !slices.Contains(spec.Containers[0].Args, argument) {
			t.Errorf("%s is missing from %v", argument, spec.Containers[0].Args)
		}
	}
	hosts := map[string]string{}
	for _, volume := range spec.Volumes {
		if volume.HostPath != nil {
			hosts[volume.Name] = volume.HostPath.Path
		}
	}
	same(t, "the host's directories", hosts, map[string]string{
		"pods-mount-dir":   "/var/lib/kubelet",
		"registration-dir": "/var/lib/kubelet/plugins_registry",
		"host-dev":         "/dev",
	})
}

func TestTheDriverObjectKeepsWhatKubernetesAssumedWithoutOne(t *testing.T) {
	spec := load(t, "base").drivers["udisk.csi.ucloud.cn"].Spec
	same(t, "attachRequired", *spec.AttachRequired, true)
	same(t, "podInfoOnMount", *spec.PodInfoOnMount, false)
	same(t, "fsGroupPolicy", *spec.FSGroupPolicy, "ReadWriteOnceWithFSType")
	same(t, "storageCapacity", *spec.StorageCapacity, false)
	same(t, "seLinuxMount", *spec.SELinuxMount, true)
	if spec.NodeAllocatableUpdatePeriodSeconds != nil {
		t.Error("the base holds a field that 1.26 does not know")
	}
	newer := load(t, "kubernetes-1.36").drivers["udisk.csi.ucloud.cn"].Spec
	if newer.NodeAllocatableUpdatePeriodSeconds == nil {
		t.Error("the overlay for newer clusters lost its field")
	}
}

// Each component does its part beside the others.
func TestComponentsGoTogether(t *testing.T) {
	for overlay, flags := range map[string][]string{
		"registrar+credentials+kubernetes-1.36+node-metrics": {
			"--credentials-dir=/etc/csi-udisk/credentials", "--http-endpoint=:9808",
		},
		"data-kubelet+credentials+node-metrics": {
			"--kubelet-dir=/data/kubelet", "--credentials-dir=/etc/csi-udisk/credentials", "--http-endpoint=:9808",
			"--kubelet-registration-path=/data/kubelet/csi-plugins/udisk.csi.ucloud.cn/csi.sock",
		},
	} {
		o := load(t, overlay)
		given := o.daemonSets["csi-udisk"].Spec.Template.Spec.Containers[0].Args
		given = append(given, o.statefulSets["csi-udisk-controller"].Spec.Template.Spec.Containers[0].Args...)
		for _, flag := range flags {
			if !slices.Contains(given, flag) {
				t.Errorf("%s lost %s", overlay, flag)
			}
		}
	}
	driver := load(t, "registrar+credentials+kubernetes-1.36+node-metrics").drivers["udisk.csi.ucloud.cn"]
	if driver.Spec.NodeAllocatableUpdatePeriodSeconds == nil {
		t.Error("the component for newer clusters lost its field")
	}
}

func hold[T any](t *testing.T, what string, have map[string]*T, names []string) {
	t.Helper()
	got := []string{}
	for name := range have {
		got = append(got, name)
	}
	slices.Sort(got)
	want := slices.Clone(names)
	slices.Sort(want)
	same(t, what, got, want)
}
