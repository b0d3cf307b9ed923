//go:build integration

// Package rig starts the real servers and the pool's own services as processes on loopback, each on free ports and in a
// folder of its own, and ends them with the test.
//
// It expects what test/install.sh installs and fails, never skips, when a server is missing.
package rig

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql" // the driver behind sql.Open
	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"

	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/testkit"
)

// Root is the project's folder.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := findRoot()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func findRoot() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		if _, err := os.Stat(filepath.Join(dir, "test", "install.sh")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("not inside the project")
		}
		dir = filepath.Dir(dir)
	}
	return "", err
}

// Versions of Apache Kafka that test/install.sh installs: the one we recommend, and the last that takes what btcpool's
// own services send.
const (
	Kafka4 = "4.1.1"
	Kafka3 = "3.9.2"
)

// shortLived has Java start quickly: what a program of seconds gains from more than its first compiler is less than what
// that takes.
var shortLived = []string{"-Xshare:auto", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"}

// JVM has the servers that are written in Java run as those of most tests do, for a minute or less. Tests with figures of
// theirs run them as operators do.
var JVM = shortLived

// Kafka is a single Apache Kafka broker (KRaft).
type Kafka struct {
	*Process
	Addr string
	Logs string // folder of the partitions
}

// StartKafka starts a broker of the version that we recommend.
func StartKafka(t testing.TB, dir string) *Kafka {
	t.Helper()
	return startKafka(t, dir, Kafka4, nil)
}

// StartKafkaVersion starts another one.
func StartKafkaVersion(t testing.TB, dir, version string) *Kafka {
	t.Helper()
	return startKafka(t, dir, version, nil)
}

// StartKafkaBehind starts a broker to which every service has a line of its own: it has to listen once for each, to
// tell the service where the line begins.
func StartKafkaBehind(t testing.TB, dir string, lines *Lines) *Kafka {
	t.Helper()
	return startKafka(t, dir, Kafka4, lines)
}

// startKafka formats a log folder and starts a broker with Kafka's default limits but for message.max.bytes, which has
// to carry whole templates.
func startKafka(t testing.TB, dir, version string, lines *Lines) *Kafka {
	t.Helper()
	lib := filepath.Join(Root(t), ".cache", "kafka-"+version, "lib")
	if _, err := os.Stat(lib); err != nil {
		t.Fatalf("Apache Kafka is not installed: %v (run test/install.sh)", err)
	}
	data := filepath.Join(dir, "kafka")
	if err := os.MkdirAll(data, 0o755); err != nil {
		t.Fatal(err)
	}
	addr := testkit.FreeAddr(t)
	controller := testkit.FreeAddr(t)
	listeners, advertised, protocols := "PLAINTEXT://"+addr, "PLAINTEXT://"+addr, "PLAINTEXT:PLAINTEXT"
	if lines != nil {
		for _, service := range Services {
			name, own := strings.ToUpper(service), testkit.FreeAddr(t)
			listeners += "," + name + "://" + own
			advertised += "," + name + "://" + lines.lay(service, "kafka", own)
			protocols += "," + name + ":PLAINTEXT"
		}
	}
	properties := filepath.Join(data, "server.properties")
	write(t, properties, strings.Join([]string{
		"process.roles=broker,controller",
		"node.id=1",
		"controller.quorum.voters=1@" + controller,
		"listeners=" + listeners + ",CONTROLLER://" + controller,
		"advertised.listeners=" + advertised,
		"inter.broker.listener.name=PLAINTEXT",
		"controller.listener.names=CONTROLLER",
		"listener.security.protocol.map=" + protocols + ",CONTROLLER:PLAINTEXT",
		"log.dirs=" + filepath.Join(data, "logs"),
		"offsets.topic.replication.factor=1",
		"offsets.topic.num.partitions=1",
		"transaction.state.log.replication.factor=1",
		"transaction.state.log.min.isr=1",
		"group.initial.rebalance.delay.ms=0",
		"auto.create.topics.enable=false",
		"message.max.bytes=67108864",
		"replica.fetch.max.bytes=67108864",
	}, "\n")+"\n")
	env := []string{"CLASSPATH=" + filepath.Join(lib, "*")}
	logging := "-Dlog4j2.configurationFile=" + filepath.Join(Root(t), "test", "kafka", "log4j2.properties")

	k := &Kafka{Addr: addr, Logs: filepath.Join(data, "logs")}
	if err := formatted.into(k.Logs, version, func() *exec.Cmd {
		format := exec.Command("java", append(slices.Clone(shortLived), logging, "kafka.tools.StorageTool",
			"format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c", properties)...)
		format.Env = append(os.Environ(), env...)
		return format
	}); err != nil {
		t.Fatalf("format Kafka's storage: %v", err)
	}
	k.Process = start(t, dir, "kafka", "java", env, append(slices.Clone(JVM), "-Xmx512m", logging, "kafka.Kafka", properties)...)
	k.WaitReady(t)
	return k
}

// formatted is what Kafka's tool lays into an empty folder, by version: it is the same for every broker of the rig, and
// the tool takes as long as a broker that starts.
var formatted formats

type formats struct {
	mu  sync.Mutex
	all map[string]map[string][]byte
}

// into formats a folder, by the tool if that has not been done of a version yet.
func (f *formats) into(dir, version string, tool func() *exec.Cmd) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all[version] == nil {
		if out, err := tool().CombinedOutput(); err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		files := map[string][]byte{}
		for _, e := range entries {
			if files[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
		if f.all == nil {
			f.all = map[string]map[string][]byte{}
		}
		f.all[version] = files
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, content := range f.all[version] {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// WaitReady waits until the broker answers a metadata request: after a kill -9 it opens its port long before it serves.
func (k *Kafka) WaitReady(t testing.TB) {
	t.Helper()
	transport := &kafka.Transport{}
	defer transport.CloseIdleConnections()
	client := &kafka.Client{Addr: kafka.TCP(k.Addr), Timeout: 2 * time.Second, Transport: transport}
	testkit.Until(t, 10*time.Minute, "Kafka answers", func(ctx context.Context) error {
		if k.Exited() {
			t.Fatalf("Kafka ended: %s", k.LogTail(4<<10))
		}
		answer, err := client.Metadata(ctx, &kafka.MetadataRequest{})
		if err == nil && len(answer.Brokers) == 0 {
			err = errors.New("no broker registered yet")
		}
		return err
	})
}

// LoseEnd kills the broker, takes bytes off the end of a topic's partition 0, as a power cut can, and starts it again.
func (k *Kafka) LoseEnd(t testing.TB, topic string, bytes int64) {
	t.Helper()
	k.Kill()
	segment := filepath.Join(k.Logs, topic+"-0", "00000000000000000000.log")
	info, err := os.Stat(segment)
	if err == nil {
		err = os.Truncate(segment, max(info.Size()-bytes, 0))
	}
	if err != nil {
		t.Fatal(err)
	}
	k.Start()
	k.WaitReady(t)
}

// MariaDB is a database server with an empty database and an account for it.
type MariaDB struct {
	*Process
	Addr string
	DSN  string // of the account, as go-sql-driver/mysql takes it
}

// StartMariaDB initialises a data folder and starts the server on a free port.
func StartMariaDB(t testing.TB, dir string) *MariaDB {
	t.Helper()
	data, tmp := filepath.Join(dir, "mariadb"), filepath.Join(dir, "mariadb.tmp")
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	// Many servers are run beside each other: little is written, the machine's room for asynchronous I/O is left alone,
	// and none deletes the temporary tables of another, as one does that starts and finds some.
	own := []string{
		"--no-defaults", "--user=" + userName(t), "--datadir=" + data, "--tmpdir=" + tmp,
		"--innodb-log-file-size=8M", "--innodb-use-native-aio=0",
	}
	install := exec.Command("mariadb-install-db", append(own, "--auth-root-authentication-method=normal", "--skip-test-db")...)
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("mariadb-install-db: %v (run test/install.sh)\n%s", err, out[:min(len(out), 1500)]) // then it says where to ask
	}
	socket := filepath.Join(dir, "mariadb.sock")
	port := testkit.FreePort(t)
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	m := &MariaDB{Addr: addr, DSN: "pool:secret@tcp(" + addr + ")/pool"}
	m.Process = start(t, dir, "mariadb", "/usr/sbin/mariadbd", nil,
		append(own, "--socket="+socket, "--bind-address=127.0.0.1", fmt.Sprintf("--port=%d", port))...)
	db, err := sql.Open("mysql", "root@unix("+socket+")/")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	testkit.Until(t, testkit.Patience, "MariaDB answers", db.PingContext)
	for _, statement := range []string{
		"CREATE DATABASE pool CHARACTER SET utf8mb4",
		"CREATE USER pool@'127.0.0.1' IDENTIFIED BY 'secret'",
		"GRANT ALL ON *.* TO pool@'127.0.0.1'",
	} {
		if _, err := db.Exec(statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	return m
}

// Open returns a connection pool to the database, closed with the test.
func (m *MariaDB) Open(t testing.TB) *sql.DB {
	t.Helper()
	db, err := sql.Open("mysql", m.DSN+"?parseTime=true&loc=UTC")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// Redis is a Redis server that keeps nothing on disk.
type Redis struct {
	*Process
	Addr string
}

// StartRedis starts the server on a free port.
func StartRedis(t testing.TB, dir string) *Redis {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Fatalf("%v (run test/install.sh)", err)
	}
	port := testkit.FreePort(t)
	r := &Redis{Addr: fmt.Sprintf("127.0.0.1:%d", port)}
	r.Process = start(t, dir, "redis", "redis-server", nil, "--bind", "127.0.0.1", "--port", strconv.Itoa(port),
		"--save", "", "--appendonly", "no", "--dir", dir)
	r.WaitReady(t)
	return r
}

// WaitReady waits until the server answers.
func (r *Redis) WaitReady(t testing.TB) {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: r.Addr})
	defer func() { _ = client.Close() }()
	testkit.Until(t, testkit.Patience, "Redis answers", func(ctx context.Context) error { return client.Ping(ctx).Err() })
}

// ZooKeeper is a standalone ZooKeeper server.
type ZooKeeper struct {
	*Process
	Addr string
}

// StartZooKeeper starts the server and waits until a session can be opened.
func StartZooKeeper(t testing.TB, dir string) *ZooKeeper {
	t.Helper()
	if _, err := os.Stat("/usr/share/java/zookeeper.jar"); err != nil {
		t.Fatalf("ZooKeeper is not installed: %v (run test/install.sh)", err)
	}
	data := filepath.Join(dir, "zookeeper")
	if err := os.MkdirAll(data, 0o755); err != nil {
		t.Fatal(err)
	}
	port := testkit.FreePort(t)
	config := filepath.Join(data, "zoo.cfg")
	write(t, config, fmt.Sprintf("tickTime=500\ndataDir=%s\nclientPort=%d\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n4lw.commands.whitelist=srvr,wchs\n", data, port))
	z := &ZooKeeper{Addr: fmt.Sprintf("127.0.0.1:%d", port)}
	z.Process = start(t, dir, "zookeeper", "java", []string{"CLASSPATH=/etc/zookeeper/conf:/usr/share/java/*"},
		append(slices.Clone(JVM), "-Xmx128m", "org.apache.zookeeper.server.quorum.QuorumPeerMain", config)...)
	z.WaitReady(t)
	return z
}

// Watches asks the server how many watches its clients have.
func (z *ZooKeeper) Watches(ctx context.Context) (n int, err error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", z.Addr)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "wchs"); err != nil {
		return 0, err
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		return 0, err
	}
	_, total, ok := bytes.Cut(answer, []byte("Total watches:"))
	if !ok {
		return 0, fmt.Errorf("wchs: %s", answer)
	}
	return strconv.Atoi(string(bytes.TrimSpace(total)))
}

// WaitReady waits until the server serves: it answers the command srvr with its state.
func (z *ZooKeeper) WaitReady(t testing.TB) {
	t.Helper()
	testkit.Until(t, testkit.Patience, "ZooKeeper answers", func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", z.Addr)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
			return err
		}
		if _, err := conn.Write([]byte("srvr")); err != nil {
			return err
		}
		answer, err := io.ReadAll(conn)
		if err == nil && !bytes.Contains(answer, []byte("Mode: standalone")) {
			err = fmt.Errorf("srvr: %s", answer)
		}
		return err
	})
}

// S3 is a versitygw server that keeps objects as files, with one bucket.
type S3 struct {
	*Process
	Addr, Bucket, AccessKey, SecretKey string
	Objects                            string // folder of the bucket's
}

// StartS3 starts the server and waits until it answers.
func StartS3(t testing.TB, dir string) *S3 {
	t.Helper()
	s := &S3{Addr: testkit.FreeAddr(t), Bucket: "shares", AccessKey: "pool", SecretKey: "very secret"}
	s.Objects = filepath.Join(dir, "s3", s.Bucket)
	if err := os.MkdirAll(s.Objects, 0o755); err != nil {
		t.Fatal(err)
	}
	s.Process = start(t, dir, "s3", filepath.Join(Root(t), ".cache", "bin", "versitygw"), nil,
		"--port", s.Addr, "--access", s.AccessKey, "--secret", s.SecretKey, "posix", filepath.Dir(s.Objects))
	s.WaitReady(t)
	return s
}

// WaitReady waits until the server answers.
func (s *S3) WaitReady(t testing.TB) {
	t.Helper()
	testkit.Until(t, testkit.Patience, "the S3 server answers", func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.Addr)
		if err == nil {
			err = conn.Close()
		}
		return err
	})
}

// Node is how the pool reaches one.
type Node struct {
	URL, User, Password string
	ZMQ                 string // of hashblock; "": it has none
}

// Btcd is a btcd node on a fresh regtest chain. It has no ZMQ.
type Btcd struct {
	*Process
	*noderpc.Client
	URL, User, Password string
	peer                string // host:port for other nodes
}

// Node is how the pool reaches it.
func (b *Btcd) Node() Node { return Node{URL: b.URL, User: b.User, Password: b.Password} }

// StartBtcd starts the node, connects it to its peers and waits until it hands out templates.
func StartBtcd(t testing.TB, dir, miningAddress string, peers ...*Btcd) *Btcd {
	t.Helper()
	addr := testkit.FreeAddr(t)
	b := &Btcd{URL: "http://" + addr, User: "node", Password: "secret", peer: testkit.FreeAddr(t)}
	data := filepath.Join(dir, "btcd")
	args := []string{
		"--configfile=/dev/null", "--regtest", "--datadir=" + filepath.Join(data, "data"), "--logdir=" + filepath.Join(data, "logs"),
		"--rpcuser=" + b.User, "--rpcpass=" + b.Password, "--rpclisten=" + addr,
		"--notls", "--listen=" + b.peer, "--nodnsseed", "--nocfilters", "--miningaddr=" + miningAddress,
	}
	var err error
	if b.Client, err = noderpc.New(noderpc.Config{URL: b.URL, User: b.User, Password: b.Password}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	for _, p := range peers {
		args = append(args, "--connect="+p.peer)
	}
	b.Process = start(t, dir, "btcd", filepath.Join(Root(t), ".cache", "bin", "btcd"), nil, args...)
	b.WaitReady(t)
	return b
}

// WaitReady waits until the node answers.
func (b *Btcd) WaitReady(t testing.TB) {
	t.Helper()
	testkit.Until(t, testkit.Patience, "btcd answers", func(ctx context.Context) error {
		var height int
		return b.Call(ctx, "getblockcount", &height)
	})
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// userName is whom mariadbd should run as: it refuses to be root unless told so by name.
func userName(t testing.TB) string {
	t.Helper()
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	return u.Username
}

// PayoutAddress is a regtest address nobody holds a key to.
const PayoutAddress = "bcrt1qwv4vhllgu3hsr0k3c2sspleh87dwey3wm0sw4t"
