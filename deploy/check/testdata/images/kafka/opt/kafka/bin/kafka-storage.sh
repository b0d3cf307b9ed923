#!/bin/sh
# As Apache Kafka's own script of this name: the class, by the jars of the image.
exec java -Xshare:auto -XX:TieredStopAtLevel=1 ${KAFKA_HEAP_OPTS-} -cp '/opt/kafka/libs/*' kafka.tools.StorageTool "$@"
