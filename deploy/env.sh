#!/bin/sh
# Writes what docker-compose.yml needs: .env, and secrets/ with fresh passwords. What is there stays as it is.
#
#   deploy/env.sh                                  mainnet, with Bitcoin Core in a container
#   deploy/env.sh regtest                          a chain of its own, on which a miner finds blocks
#   deploy/env.sh mainnet http://10.0.0.5:8332 pool   a node of yours: its RPC address and user
set -eu
cd "$(dirname "$0")/.."
umask 077
network=${1:-mainnet} node=${2:-} user=${3:-pool}

# Of an .env that had it.
was() { [ ! -e .env ] || sed -n "s/^$1=//p" .env | head -n 1 | sed -e 's/^"\(.*\)"$/\1/' -e "s/^'\(.*\)'\$/\1/"; }
random() { od -An -v -tx1 -N24 /dev/urandom | tr -d ' \n'; }

# secret NAME VALUE: who reads a secret in a container is a number that the host does not know; nobody else comes past
# the folder.
secret() {
	[ -e "secrets/$1" ] || { printf '%s\n' "$2" >"secrets/$1.new" && chmod 444 "secrets/$1.new" && mv "secrets/$1.new" "secrets/$1"; }
}
mkdir -p secrets
password=$(was DB_PASSWORD) token=$(was HANDOVER_TOKEN) rpc=$(was NODE_RPC_PASSWORD)
secret database_password "${password:-$(random)}"
secret database_dsn "mysql://btcpool:$(cat secrets/database_password)@tcp(mariadb:3306)/btcpool"
secret handover_token "${token:-$(random)}"
secret node_rpc_password "${rpc:-$(random)}"
secret grafana_password "$(random)"
secret switchapi_token "$(random)"

if [ -e .env ]; then
	echo "env: .env stays as it is; secrets/ is complete"
	exit
fi
profiles=node payout=
case $network in
mainnet | testnet4 | signet | testnet3) ;;
regtest) profiles=node,regtest payout=bcrt1qwv4vhllgu3hsr0k3c2sspleh87dwey3wm0sw4t ;;
*)
	echo "env: $network is none of mainnet, testnet4, signet, testnet3, regtest" >&2
	exit 2
	;;
esac
zmq=tcp://bitcoind:28332
if [ -n "$node" ]; then
	zmq=
	case $profiles in *regtest) profiles=regtest ;; *) profiles= ;; esac
fi
sed -e "s|^NETWORK=.*|NETWORK=$network|" -e "s|^COMPOSE_PROFILES=.*|COMPOSE_PROFILES=$profiles|" \
	-e "s|^PAYOUT_ADDRESS=.*|PAYOUT_ADDRESS=$payout|" -e "s|^NODE_RPC_URL=.*|NODE_RPC_URL=${node:-http://bitcoind:8332}|" \
	-e "s|^NODE_RPC_USER=.*|NODE_RPC_USER=$user|" -e "s|^NODE_ZMQ_HASHBLOCK=.*|NODE_ZMQ_HASHBLOCK=$zmq|" \
	.env.example >.env.new
mv .env.new .env
echo "env: wrote .env and secrets/"
[ -n "$payout" ] || echo "env: now set PAYOUT_ADDRESS in .env: it receives the block rewards"
[ -z "$node" ] || echo "env: now write the RPC password of the node's user $user into secrets/node_rpc_password"
