#!/bin/sh
# As ZooKeeper's own script of this name.
[ "$1" = start-foreground ] || exit 2
exec java -Xmx128m -cp '/etc/zookeeper/conf:/usr/share/java/*' org.apache.zookeeper.server.quorum.QuorumPeerMain "$2"
