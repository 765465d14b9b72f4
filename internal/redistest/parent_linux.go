package redistest

import "syscall"

// dieWithParent ends a server when the test process ends without cleaning up, as after a panic or a
// timeout.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
