package newest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"
	rbac "k8s.io/api/rbac/v1"

	"csi-udisk/tests/deploy/roundtrip"
)

// What each sidecar asks of the API server with the flags that it is given here: "group/resource: verbs".
var needs = map[string][]string{
	"csi-udisk-provisioner": {
		"/persistentvolumes: create delete get list patch watch",
		"/persistentvolumeclaims: get list update watch",
		"/events: create list patch update watch",
		"/nodes: get list watch",
		"storage.k8s.io/storageclasses: get list watch",
		"storage.k8s.io/csinodes: get list watch",
		"storage.k8s.io/volumeattachments: get list watch",
		"storage.k8s.io/volumeattributesclasses: get list watch",
		"snapshot.storage.k8s.io/volumesnapshots: get list",
		"snapshot.storage.k8s.io/volumesnapshotcontents: get list",
	},
	"csi-udisk-attacher": {
		"/persistentvolumes: get list patch watch",
		"storage.k8s.io/csinodes: get list watch",
		"storage.k8s.io/volumeattachments: get list patch watch",
		"storage.k8s.io/volumeattachments/status: patch",
	},
	"csi-udisk-resizer": {
		"/persistentvolumes: get list patch watch",
		"/persistentvolumeclaims: get list watch",
		"/persistentvolumeclaims/status: patch",
		"/events: create list patch update watch",
		"storage.k8s.io/volumeattributesclasses: get list watch",
	},
	"csi-udisk-cluster-driver-registrar": {},
	"csi-udisk-controller":               {},
	"csi-udisk-node":                     {},
}

func TestRolesGrantWhatIsNeededAndNoMore(t *testing.T) {
	o := load(t, "base")
	for name, role := range o.clusterRoles {
		want := slices.Clone(needs[name])
		slices.Sort(want)
		same(t, name, granted(t, role.Rules), want)
	}
	// Leader election reads, makes and renews one Lease per sidecar.
	same(t, "the leases", granted(t, o.roles["csi-udisk-provisioner"].Rules),
		[]string{"coordination.k8s.io/leases: create delete get list update watch"})
	same(t, "the other role", granted(t, o.roles["csi-udisk-attacher"].Rules), []string{})

	// The aggregated role selects exactly the roles of the sidecars.
	selector := o.clusterRoles["csi-udisk-controller"].AggregationRule.ClusterRoleSelectors
	same(t, "the aggregation", selector[0].MatchLabels, labels("controller"))
	for name, role := range o.clusterRoles {
		aggregated := role.Labels["role"] == "controller"
		if aggregated != (name != "csi-udisk-node") {
			t.Errorf("%s is in the wrong role: %v", name, role.Labels)
		}
	}
}

func granted(t *testing.T, rules []rbac.PolicyRule) []string {
	t.Helper()
	grants := []string{}
	for _, rule := range rules {
		verbs := slices.Clone(rule.Verbs)
		slices.Sort(verbs)
		if len(rule.NonResourceURLs) > 0 || slices.Contains(verbs, "*") {
			t.Errorf("too wide: %+v", rule)
		}
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				grants = append(grants, fmt.Sprintf("%s/%s: %s", group, resource, strings.Join(verbs, " ")))
			}
		}
	}
	slices.Sort(grants)
	return grants
}

func TestTheControllerHasNoRights(t *testing.T) {
	for _, overlay := range roundtrip.Names(t) {
		pod := load(t, overlay).statefulSets["csi-udisk-controller"].Spec.Template.Spec
		if pod.HostNetwork || pod.HostPID || pod.HostIPC {
			t.Errorf("%s: the controller is in a namespace of the host", overlay)
		}
		context := pod.SecurityContext
		if !*context.RunAsNonRoot || *context.RunAsUser == 0 || *context.RunAsUser != *context.FSGroup || *context.RunAsGroup != *context.FSGroup {
			t.Errorf("%s: not one user and group for all: %+v", overlay, context)
		}
		for _, container := range pod.Containers {
			same(t, overlay+" "+container.Name, container.SecurityContext, map[string]any{
				"allowPrivilegeEscalation": false,
				"capabilities":             map[string]any{"drop": []string{"ALL"}},
				"readOnlyRootFilesystem":   true,
			})
		}
		for _, volume := range pod.Volumes {
			if volume.HostPath != nil {
				t.Errorf("%s: the controller sees the host's %s", overlay, volume.HostPath.Path)
			}
		}
	}
}

func TestTheNodeHasNoMoreThanPropagationDemands(t *testing.T) {
	for _, overlay := range roundtrip.Names(t) {
		pod := load(t, overlay).daemonSets["csi-udisk"].Spec.Template.Spec
		if pod.HostPID || pod.HostIPC || *pod.AutomountServiceAccountToken {
			t.Errorf("%s: the node has a namespace of the host or a token that it does not need", overlay)
		}
		for _, container := range pod.Containers {
			if !*container.SecurityContext.ReadOnlyRootFilesystem {
				t.Errorf("%s: %s may write its root", overlay, container.Name)
			}
			bidirectional := 0
			for _, mount := range container.VolumeMounts {
				if mount.MountPropagation != nil && *mount.MountPropagation == core.MountPropagationBidirectional {
					bidirectional++
				}
			}
			privileged := container.SecurityContext.Privileged != nil && *container.SecurityContext.Privileged
			if privileged != (bidirectional > 0) {
				t.Errorf("%s: %s is privileged without need, or not in need", overlay, container.Name)
			}
			if len(container.EnvFrom) > 0 {
				t.Errorf("%s: %s takes a whole ConfigMap, which may hold the cloud's keys", overlay, container.Name)
			}
			for _, variable := range container.Env {
				from := variable.ValueFrom
				if from != nil && (from.SecretKeyRef != nil || from.ConfigMapKeyRef != nil && strings.Contains(from.ConfigMapKeyRef.Key, "KEY")) {
					t.Errorf("%s: %s takes %s", overlay, container.Name, variable.Name)
				}
			}
			if _, limited := container.Resources.Limits[core.ResourceMemory]; limited && container.Name == "csi-udisk" {
				t.Errorf("%s: a check of a large file system would be killed by the memory limit", overlay)
			}
		}
		tolerated := slices.ContainsFunc(pod.Tolerations, func(one core.Toleration) bool {
			return one.Operator == core.TolerationOpExists && one.Key == "" && one.Effect == ""
		})
		if !tolerated {
			t.Errorf("%s: a taint would drive the driver from a host with volumes", overlay)
		}
	}
}

// What is mounted below a Bidirectional mount is mounted on the host as well, stays there when the container is gone, and is
// copied with it into the next one.
func TestNothingIsMountedBelowWhatGoesToTheHost(t *testing.T) {
	for _, overlay := range roundtrip.Names(t) {
		for _, container := range containers(t, overlay) {
			for _, outer := range container.VolumeMounts {
				if outer.MountPropagation == nil || *outer.MountPropagation != core.MountPropagationBidirectional {
					continue
				}
				for _, inner := range container.VolumeMounts {
					if strings.HasPrefix(inner.MountPath, strings.TrimSuffix(outer.MountPath, "/")+"/") {
						t.Errorf("%s: %s leaks a mount of %s to the host with every start", overlay, container.Name, inner.MountPath)
					}
				}
			}
		}
	}
}

func TestAPortIsOpenOnHostsOnlyWhereItIsAskedFor(t *testing.T) {
	for _, overlay := range roundtrip.Names(t) {
		o := load(t, overlay)
		node := o.daemonSets["csi-udisk"].Spec.Template.Spec.Containers[0]
		opens := slices.ContainsFunc(node.Args, func(argument string) bool {
			return strings.HasPrefix(argument, "--http-endpoint")
		})
		if opens != strings.Contains(overlay, "node-metrics") {
			t.Errorf("%s: %v", overlay, node.Args)
		}
		// The controller's is the only one that its policy lets in.
		controller := o.statefulSets["csi-udisk-controller"].Spec.Template.Spec.Containers[0]
		if !slices.Contains(controller.Args, "--http-endpoint=:9808") {
			t.Errorf("%s: %v", overlay, controller.Args)
		}
		ingress := o.policies["csi-udisk-controller"].Spec.Ingress
		same(t, overlay+": the policy", ingress, []any{map[string]any{
			"ports": []any{map[string]any{"protocol": "TCP", "port": 9808}},
		}})
	}
}
