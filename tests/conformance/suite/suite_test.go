// Package suite is the Gateway API's conformance suite as one program: `go test -c` of it is what tests/conformance/run starts.
package suite

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
)

func TestConformance(t *testing.T) { conformance.RunConformance(t) }
