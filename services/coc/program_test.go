package main

import "sync"

var (
	builtOnce sync.Once
	builtPath string
	builtErr  error
)
