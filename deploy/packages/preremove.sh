#!/bin/sh
# Stops and disables what the package brought, unless another version takes its place.
set -eu
case ${1-} in upgrade | failed-upgrade | [1-9]*) exit 0 ;; esac
[ -d /run/systemd/system ] || exit 0
for unit in "btcpool-agentproxy.service" "btcpool.target" "btcpool@*.service"; do
	case $unit in
	btcpool-agentproxy.service) [ "${DPKG_MAINTSCRIPT_PACKAGE:-btcpool-agentproxy}" = btcpool-agentproxy ] || continue ;;
	*) [ "${DPKG_MAINTSCRIPT_PACKAGE:-btcpool}" = btcpool ] || continue ;;
	esac
	systemctl disable --now "$unit" 2>/dev/null || true
done
