#!/bin/sh
# Stops and disables the farm proxy, unless another version of the package takes its place.
set -eu
case ${1-} in upgrade | failed-upgrade | [1-9]*) exit 0 ;; esac
[ -d /run/systemd/system ] || exit 0
systemctl disable --now btcpool-agentproxy.service || true
