#!/bin/bash
# A MariaDB in a pod: a protocol in which the server speaks first.
set -euo pipefail
chmod 777 /srv
mariadb-install-db --no-defaults --user=mysql --datadir=/srv/db --auth-root-authentication-method=normal --skip-test-db >/dev/null
exec mariadbd --no-defaults --user=mysql --datadir=/srv/db --port=3306 --bind-address='*' --socket=/srv/mysql.sock --skip-grant-tables --skip-networking=0
