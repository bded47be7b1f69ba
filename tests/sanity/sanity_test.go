// Package sanity lets parties that know nothing of this driver judge it: csi-sanity, and the official Go
// package of the CSI specification.
package sanity

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// specs is the size of csi-sanity v5.6.0; a number that changes means that the judge changed.
const specs = 102

// notAdvertised says of each reason that csi-sanity gives for a skip which capability it follows from. A skip
// for any other reason fails the test, and so does one for a capability that the driver advertises.
var notAdvertised = map[string]string{
	"GetCapacity not supported":                                 "GET_CAPACITY",
	"Snapshot not supported":                                    "CREATE_DELETE_SNAPSHOT",
	"Volume Cloning not supported":                              "CLONE_VOLUME",
	"Modify volume not supported":                               "MODIFY_VOLUME",
	"Modify Volume not supported":                               "MODIFY_VOLUME",
	"ControllerModifyVolume not supported":                      "MODIFY_VOLUME",
	"ControllerPublishVolume.readonly field not supported":      "PUBLISH_READONLY",
	"ListSnapshots not supported":                               "LIST_SNAPSHOTS",
	"GetSnapshot not supported":                                 "GET_SNAPSHOT",
	"DeleteSnapshot not supported":                              "CREATE_DELETE_SNAPSHOT",
	"CreateSnapshot not supported":                              "CREATE_DELETE_SNAPSHOT",
	"SNAPSHOT_ACCESSIBILITY_CONSTRAINTS not supported":          "SNAPSHOT_ACCESSIBILITY_CONSTRAINTS",
	"ControllerGetVolumeHealth not supported":                   "GET_VOLUME_HEALTH",
	"ControllerListVolumeHealth not supported":                  "LIST_VOLUME_HEALTH",
	"GroupControllerService not supported":                      "GROUP_CONTROLLER_SERVICE",
	"NodeGetStorageHealth not supported":                        "node GET_STORAGE_HEALTH",
	"Service does not have single node multi writer capability": "SINGLE_NODE_MULTI_WRITER",
}

func TestSanity(t *testing.T) {
	for _, capability := range notAdvertised {
		if !isCapability(capability) {
			t.Fatalf("CSI has no capability %s", capability)
		}
	}
	for _, access := range []string{"mount", "block"} {
		t.Run(access, func(t *testing.T) {
			s := startSandbox(t)
			offered := advertised(t, s)
			t.Logf("advertised: %s", strings.Join(offered, ", "))
			// The second run meets what the first one left, and the names that it used.
			for round := 1; round <= 2; round++ {
				t.Run(fmt.Sprint("run ", round), func(t *testing.T) { judge(t, s, access, offered) })
			}
		})
	}
}

func judge(t *testing.T, s sandbox, access string, offered []string) {
	dir := t.TempDir()
	report := filepath.Join(dir, "report.json")
	suite := exec.Command(os.Args[0], "-test.run", "^TestSuite$", "-ginkgo.no-color", "-ginkgo.seed", "1")
	suite.Env = append(os.Environ(), "SANITY_REPORT="+report, "SANITY_DIR="+dir, "SANITY_ACCESS="+access,
		"SANITY_NODE="+s.node, "SANITY_CONTROLLER="+s.controller)
	output, runError := suite.CombinedOutput()
	text, err := os.ReadFile(report)
	if err != nil {
		t.Fatalf("csi-sanity made no report (%v): %v\n%s", err, runError, tail(string(output), 100))
	}
	var outcomes []outcome
	if err := json.Unmarshal(text, &outcomes); err != nil {
		t.Fatal(err)
	}

	states := map[string][]outcome{}
	skips := map[string]int{}
	for _, o := range outcomes {
		states[o.State] = append(states[o.State], o)
		if o.State != "skipped" {
			continue
		}
		// Some reasons are the ends of others.
		capability, length := "", 0
		for reason, missing := range notAdvertised {
			if strings.Contains(o.Message, reason) && len(reason) > length {
				capability, length = missing, len(reason)
			}
		}
		if capability == "" {
			t.Errorf("skipped for a reason that is no missing capability: %s: %s", o.Name, o.Message)
		}
		if slices.Contains(offered, capability) {
			t.Errorf("skipped although %s is advertised: %s: %s", capability, o.Name, o.Message)
		}
		skips[capability]++
	}
	passed, skipped := len(states["passed"]), len(states["skipped"])
	failed := append(states["failed"], append(states["panicked"], states["timedout"]...)...)
	t.Logf("csi-sanity, %s: %d run, %d passed, %d failed, %d skipped", access, passed+len(failed), passed, len(failed), skipped)
	for _, capability := range slices.Sorted(maps.Keys(skips)) {
		t.Logf("  skipped %d: %s is not advertised", skips[capability], capability)
	}
	if len(failed) > 0 {
		t.Errorf("failed:\n%s", describe(failed))
	}
	if passed+skipped+len(failed) != specs {
		t.Errorf("%d specs were judged, not %d", passed+skipped+len(failed), specs)
	}
	if runError != nil && len(failed) == 0 {
		t.Errorf("csi-sanity says %v:\n%s", runError, tail(string(output), 60))
	}
}
