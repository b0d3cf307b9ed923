#!/bin/sh
# Formats the broker's folder if it is new, and becomes the broker.
set -eu
properties=/etc/btcpool/kafka.properties
/opt/kafka/bin/kafka-storage.sh format --ignore-formatted --cluster-id 5L6g3nShT-eMCtK--X86sw --config $properties
exec /opt/kafka/bin/kafka-server-start.sh $properties
