#!/bin/sh
# What MariaDB's image does with the environment: it makes the database and its user in a server that listens on its socket
# only, and then becomes the server.
set -eu
data=/var/lib/mysql socket=/run/mysqld/mysqld.sock
if [ ! -e "$data/mysql" ]; then
	mariadb-install-db --no-defaults --auth-root-authentication-method=normal --skip-test-db --datadir=$data >/dev/null
	mariadbd --no-defaults --datadir=$data --socket=$socket --skip-networking &
	until mariadb-admin --no-defaults --user=root --socket=$socket ping 2>/dev/null; do sleep 0.2; done
	mariadb --no-defaults --user=root --socket=$socket <<SQL
CREATE DATABASE \`$MARIADB_DATABASE\`;
CREATE USER '$MARIADB_USER'@'%' IDENTIFIED BY '$(cat "$MARIADB_PASSWORD_FILE")';
GRANT ALL ON \`$MARIADB_DATABASE\`.* TO '$MARIADB_USER'@'%';
ALTER USER root@localhost IDENTIFIED BY '$(od -An -tx1 -N16 /dev/urandom | tr -d ' ')';
SQL
	kill $!
	wait $!
fi
exec mariadbd --no-defaults --datadir=$data --socket=$socket --skip-name-resolve "$@"
