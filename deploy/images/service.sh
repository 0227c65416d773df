#!/bin/sh
# Makes a base ready for a service: its user, no programs that change the user, and Python's own modules compiled (on a
# read-only root nothing can be compiled later).
set -eu

echo 'kubechain:x:65532:65532:KubeChain:/tmp:/usr/sbin/nologin' >>/etc/passwd
echo 'kubechain:x:65532:' >>/etc/group
modules=$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
python3 -m compileall -q -x '/(test|idlelib|lib2to3|site-packages)/' "$modules"
find / -xdev -type f -perm /6000 -exec chmod a-s {} +
