#!/bin/sh
# Becomes Bitcoin Core on $NETWORK, whose password stands in no command line. RPC is on port 8332 whatever the network.
set -eu
case $NETWORK in
mainnet) chain=main ;;
testnet3) chain=test ;;
*) chain=$NETWORK ;;
esac
umask 077
printf 'rpcuser=%s\nrpcpassword=%s\n' "$NODE_RPC_USER" "$(cat /run/secrets/node_rpc_password)" >/run/bitcoin/bitcoin.conf
exec bitcoind -conf=/run/bitcoin/bitcoin.conf -datadir=/home/bitcoin/.bitcoin -chain="$chain" -prune="$PRUNE_MB" \
	-dbcache="$DBCACHE_MB" -listen=0 -printtoconsole -nodebuglogfile \
	-server -rpcbind=0.0.0.0 -rpcport=8332 -rpcallowip=10.0.0.0/8 -rpcallowip=172.16.0.0/12 -rpcallowip=192.168.0.0/16 \
	-zmqpubhashblock=tcp://0.0.0.0:28332
