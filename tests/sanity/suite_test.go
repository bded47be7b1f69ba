package sanity

import (
	"encoding/json"
	"os"
	"testing"

	csisanity "github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"
)

// outcome is what the parent test wants to know of one spec.
type outcome struct {
	Name    string
	State   string
	Message string
}

// TestSuite is one run of csi-sanity. TestSanity starts it in processes of their own: Ginkgo runs its specs
// once per process, and each run needs its own driver.
func TestSuite(t *testing.T) {
	report := os.Getenv("SANITY_REPORT")
	if report == "" {
		t.Skip("started by TestSanity")
	}
	config := csisanity.NewTestConfig()
	config.Address = os.Getenv("SANITY_NODE")
	config.ControllerAddress = os.Getenv("SANITY_CONTROLLER")
	config.TargetPath = os.Getenv("SANITY_DIR") + "/mount"
	config.StagingPath = os.Getenv("SANITY_DIR") + "/staging"
	config.TestVolumeAccessType = os.Getenv("SANITY_ACCESS")
	config.TestVolumeParameters = map[string]string{"type": "ssd"}
	// Sizes come in steps of 10 GiB, and csi-sanity wants exactly what it asked for.
	config.TestVolumeExpandSize = 20 << 30
	config.TestNodeVolumeAttachLimit = true

	ginkgo.ReportAfterSuite("outcomes", func(all ginkgo.Report) {
		var outcomes []outcome
		for _, spec := range all.SpecReports {
			if spec.LeafNodeType != types.NodeTypeIt {
				continue
			}
			outcomes = append(outcomes, outcome{spec.FullText(), spec.State.String(), spec.Failure.Message})
		}
		text, err := json.Marshal(outcomes)
		if err == nil {
			err = os.WriteFile(report, text, 0o600)
		}
		if err != nil {
			t.Error(err)
		}
	})
	csisanity.Test(t, config)
}
