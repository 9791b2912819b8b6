package collector

import (
	"context"
	"strings"
	"testing"
)

func TestAPanicIsToldByItsPlaceWithoutAStack(t *testing.T) {
	err := protect(t.Context(), func(context.Context) error {
		var list []int
		list[len(t.Name())] = 1
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "defect_test.go:12") || strings.Contains(err.Error(), "goroutine") || strings.Contains(err.Error(), "\n") {
		t.Fatalf("%v", err)
	}
}
