#!/bin/sh
# Makes the user that services run as, and lets it read the configurations. Nothing is started, and what runs goes on as
# it is until it is restarted: when a pool's service stops is its operator's choice.
set -eu
if ! getent passwd btcpool >/dev/null; then
	if command -v systemd-sysusers >/dev/null; then
		systemd-sysusers /usr/lib/sysusers.d/btcpool*.conf
	else
		groupadd --system btcpool
		useradd --system --gid btcpool --home-dir /var/lib/btcpool --no-create-home --shell /usr/sbin/nologin btcpool
	fi
fi
chgrp btcpool /etc/btcpool/*.toml
if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
