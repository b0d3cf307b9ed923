package statshttpd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"
	"github.com/rs/zerolog"

	"btcpool/internal/config"
	"btcpool/internal/retry"
	"btcpool/internal/service"
	"btcpool/internal/store"
)

// RedisConfig is the section [redis]: what mining_workers holds goes to a Redis server too, as btcpool's statshttpd
// writes it.
type RedisConfig struct {
	// URL is the server, "redis://user:password@host:6379/0" or, with TLS, "rediss://..."; empty, the default: none.
	URL string `toml:"url" env:"URL"`
	// URLFile names a file that holds the URL: it keeps the password out of the configuration.
	URLFile string `toml:"url_file" env:"URL_FILE"`
	// KeyPrefix stands before each key; empty by default.
	KeyPrefix string `toml:"key_prefix"`
	// KeyExpire is how long a key stays that is not written any more; 0, the default: for ever.
	KeyExpire config.Duration `toml:"key_expire"`
	// Publish is what is told on channels of the keys' names: "users", "workers"; nothing by default.
	Publish []string `toml:"publish"`
	// Indexes are the sorted sets of a user's workers, named as redisIndexes; none by default.
	Indexes []string `toml:"indexes"`
}

func (c RedisConfig) url() config.Secret {
	return config.Secret{Key: "redis.url", Value: c.URL, File: c.URLFile}
}

// Validate reports all faults.
func (c RedisConfig) Validate() error {
	var faults config.Faults
	faults.Add(c.url().Validate())
	if c.URL != "" {
		if _, err := redisOptions(c.URL); err != nil {
			faults.Addf("redis.%w", err)
		}
	}
	if c.KeyExpire != 0 {
		faults.AtLeast("redis.key_expire", c.KeyExpire, time.Minute)
	}
	if len(c.KeyPrefix) > 100 {
		faults.Addf("redis.key_prefix: must not be longer than 100 bytes")
	}
	for _, what := range c.Publish {
		if what != "users" && what != "workers" {
			faults.Addf("redis.publish: %q must be users or workers", what)
		}
	}
	for _, name := range c.Indexes {
		if _, ok := indexOf(name); !ok {
			faults.Addf("redis.indexes: %q must be one of %q", name, indexNames())
		}
	}
	return faults.Err()
}

func redisOptions(url string) (*redis.Options, error) {
	o, err := redis.ParseURL(url)
	if err != nil {
		return nil, fmt.Errorf("url = %q: must be like redis://user:password@host:6379/0", config.RedactURL(url))
	}
	o.MaxRetries = -1 // the next pass is the next try
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout = 3*time.Second, redisPatience, redisPatience
	o.PoolSize, o.DisableIdentity, o.ContextTimeoutEnabled = 1, true, true
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return o, nil
}

const (
	redisPatience = 10 * time.Second // for one answer
	redisRows     = 500              // workers in one pipeline
)

// redisOut writes what the board holds to Redis, again and again, on a goroutine of its own: whether the server is
// there matters to nothing else.
type redisOut struct {
	cfg     RedisConfig
	names   bool // of workers and their software
	client  *redis.Client
	indexes []redisIndex
	metrics *metrics
	fault   *service.Fault
	known   map[workerKey]uint32 // what has keys there, and which of its names
	whole   bool                 // the next pass writes all that is known
}

// newRedisOut returns nil when no server is configured.
func newRedisOut(cfg Config, m *metrics, log zerolog.Logger) (*redisOut, error) {
	if cfg.Redis.url().IsZero() {
		return nil, nil
	}
	url, err := cfg.Redis.url().Read()
	if err != nil {
		return nil, err
	}
	o, err := redisOptions(url)
	if err != nil {
		return nil, fmt.Errorf("redis.%w", err)
	}
	logging.Disable() // what goes wrong is returned too
	out := &redisOut{
		cfg: cfg.Redis, names: cfg.UpdateWorkerName, client: redis.NewClient(o), metrics: m, known: make(map[workerKey]uint32), whole: true,
		fault: service.NewFault(log, zerolog.WarnLevel, "Redis not written: will try again and again", "Redis is written again"),
	}
	for _, name := range cfg.Redis.Indexes {
		index, _ := indexOf(name) // is valid
		out.indexes = append(out.indexes, index)
	}
	for _, result := range []string{"ok", "failed"} {
		m.redis.WithLabelValues(result)
	}
	return out, nil
}

// writeRedis writes to Redis each interval until ctx ends.
func (s *Service) writeRedis(ctx context.Context) {
	if s.redis == nil {
		return
	}
	for retry.Sleep(ctx, s.cfg.FlushDBInterval.Std()) {
		if !s.replayed.Load() || s.db.Load() == nil { // before that, figures and names are not whole
			continue
		}
		err := s.redis.write(ctx, s.board, s.now())
		if ctx.Err() != nil {
			return
		}
		s.redis.done(err)
	}
}

func (o *redisOut) done(err error) {
	o.fault.Set(err)
	if err != nil {
		o.whole = true // it may come back empty
		o.metrics.redis.WithLabelValues("failed").Inc()
		return
	}
	o.whole = false
	o.metrics.redis.WithLabelValues("ok").Inc()
}

// redisRow is a worker, or a user as worker 0, as it is written.
type redisRow struct {
	store.Worker
	workers int    // of a user, with a share in the last hour
	renamed uint32 // the worker's
	here    bool   // in memory
}

// redisPass is one time that all is written.
type redisPass struct {
	now      time.Time
	current  map[workerKey]bool // what has figures
	expiring map[int32]bool     // users whose indexes are
	refused  map[string]error   // by what the server said
}

// write writes each worker and user that had a share, and zeros once for those whose last share is out of all sums.
// What the server refuses, as for a key that is something else, keeps nothing else from being written.
func (o *redisOut) write(ctx context.Context, b *board, now time.Time) error {
	keys := b.redisKeys(o.whole)
	pass := &redisPass{now, make(map[workerKey]bool, len(keys)), make(map[int32]bool), make(map[string]error)}
	for _, k := range keys {
		pass.current[k] = true
	}
	var over []workerKey
	for k := range o.known {
		if !pass.current[k] {
			over = append(over, k)
		}
	}
	var err error
	for chunk := range slices.Chunk(slices.Concat(keys, over), redisRows) {
		if err = o.writeRows(ctx, pass, b.redisRows(now, chunk)); err != nil {
			break
		}
	}
	return errors.Join(append(slices.Collect(maps.Values(pass.refused)), err)...)
}

// writeRows returns why the server could not be asked.
func (o *redisOut) writeRows(ctx context.Context, pass *redisPass, rows []redisRow) error {
	pipe := o.client.Pipeline()
	ends := make([]int, len(rows)) // of each row's commands
	for i := range rows {
		o.put(ctx, pipe, pass, &rows[i])
		ends[i] = pipe.Len()
	}
	commands, err := pipe.Exec(ctx)
	refused := false
	for _, c := range commands {
		if said, ok := errors.AsType[redis.Error](c.Err()); ok {
			pass.refused[said.Error()] = fmt.Errorf("%v: %w", c.Args()[:2], said)
			refused = true
		} else if c.Err() != nil {
			return c.Err()
		}
	}
	if err != nil && !refused { // not even the login was taken
		return err
	}
	from := 0
	for i, row := range rows {
		k := workerKey{row.UserID, row.WorkerID}
		failed := slices.ContainsFunc(commands[from:ends[i]], func(c redis.Cmder) bool { return c.Err() != nil })
		switch from = ends[i]; {
		case failed:
		case pass.current[k]:
			o.known[k] = row.renamed
		default:
			delete(o.known, k)
		}
	}
	return nil
}

// put appends the commands for one row.
func (o *redisOut) put(ctx context.Context, pipe redis.Pipeliner, pass *redisPass, row *redisRow) {
	user := o.cfg.KeyPrefix + "mining_workers/pu/" + strconv.Itoa(int(row.UserID))
	fields := []any{
		"accept_5m", row.Accept5m.Difficulty(), "accept_15m", row.Accept15m.Difficulty(), "accept_1h", row.Accept1h.Difficulty(),
		"stale_15m", row.Stale15m.Difficulty(), "stale_1h", row.Stale1h.Difficulty(),
		"reject_15m", row.Reject15m.Difficulty(), "reject_1h", row.Reject1h.Difficulty(),
		"accept_count", row.AcceptCount, "updated_at", pass.now.Unix(),
	}
	if row.here {
		fields = append(fields, "last_share_ip", row.LastShareIP, "last_share_time", shareTime(row))
	}
	if row.WorkerID == 0 {
		key := user + "/all"
		o.set(ctx, pipe, key, append(fields, "worker_count", row.workers))
		if slices.Contains(o.cfg.Publish, "users") {
			pipe.Publish(ctx, key, row.workers)
		}
		return
	}
	key, member := user+"/wk/"+strconv.FormatInt(row.WorkerID, 10), strconv.FormatInt(row.WorkerID, 10)
	fields = append(fields, "reject_detail_15m", store.FormatDetail(row.RejectDetail15m), "reject_detail_1h", store.FormatDetail(row.RejectDetail1h))
	named := o.names && row.Name != ""
	if named {
		fields = append(fields, "worker_name", row.Name, "miner_agent", row.Agent)
	}
	o.set(ctx, pipe, key, fields)
	if slices.Contains(o.cfg.Publish, "workers") {
		pipe.Publish(ctx, key, 1)
		if known, ok := o.known[workerKey{row.UserID, row.WorkerID}]; named && (!ok || known != row.renamed) {
			pipe.Publish(ctx, key, 0)
		}
	}
	for _, index := range o.indexes {
		set := user + "/sort/" + index.name
		if row.here {
			pipe.ZAdd(ctx, set, redis.Z{Score: index.score(row), Member: member})
		} else {
			pipe.ZRem(ctx, set, member)
		}
		if !pass.expiring[row.UserID] {
			o.expire(ctx, pipe, set)
		}
	}
	pass.expiring[row.UserID] = true
}

func (o *redisOut) set(ctx context.Context, pipe redis.Pipeliner, key string, fields []any) {
	pipe.HSet(ctx, key, fields...)
	o.expire(ctx, pipe, key)
}

func (o *redisOut) expire(ctx context.Context, pipe redis.Pipeliner, key string) {
	if o.cfg.KeyExpire != 0 {
		pipe.Expire(ctx, key, o.cfg.KeyExpire.Std())
	}
}

func shareTime(row *redisRow) int64 {
	if row.LastShareTime.IsZero() {
		return 0
	}
	return row.LastShareTime.Unix()
}

// redisKeys are the keys of workers and users that had a share; with all, of those too whose windows are empty for
// long.
func (b *board) redisKeys(all bool) []workerKey {
	b.mu.RLock()
	defer b.mu.RUnlock()
	keys := make([]workerKey, 0, len(b.workers)+len(b.users))
	for k, w := range b.workers {
		if w.waits == nil && (all || !w.cleared) {
			keys = append(keys, k)
		}
	}
	for id, u := range b.users {
		if u.last != 0 && (all || !u.cleared) {
			keys = append(keys, workerKey{UserID: id})
		}
	}
	return keys
}

// redisRows makes the rows of keys, zeros for those that have gone.
func (b *board) redisRows(now time.Time, keys []workerKey) []redisRow {
	b.mu.RLock()
	defer b.mu.RUnlock()
	rows := make([]redisRow, 0, len(keys))
	for _, k := range keys {
		row := redisRow{Worker: store.Worker{UserID: k.UserID, WorkerID: k.WorkerID}}
		if w := b.workers[k]; w != nil {
			row = redisRow{Worker: w.row(k, now.Unix()), renamed: w.renamed, here: true}
			row.Name, row.Agent = w.Name, w.Agent
		} else if u := b.users[k.UserID]; u != nil && k.WorkerID == 0 {
			row = redisRow{Worker: u.row(k, now.Unix()), workers: u.active(now), here: true}
		}
		rows = append(rows, row)
	}
	return rows
}

// redisIndex is a sorted set of a user's workers.
type redisIndex struct {
	name  string
	score func(row *redisRow) float64
}

// redisIndexes are called as btcpool's.
func redisIndexes() []redisIndex {
	return []redisIndex{
		{"accept_5m", func(r *redisRow) float64 { return float64(r.Accept5m.Difficulty()) }},
		{"accept_15m", func(r *redisRow) float64 { return float64(r.Accept15m.Difficulty()) }},
		{"reject_15m", func(r *redisRow) float64 { return float64(r.Reject15m.Difficulty()) }},
		{"stale_15m", func(r *redisRow) float64 { return float64(r.Stale15m.Difficulty()) }},
		{"accept_1h", func(r *redisRow) float64 { return float64(r.Accept1h.Difficulty()) }},
		{"reject_1h", func(r *redisRow) float64 { return float64(r.Reject1h.Difficulty()) }},
		{"stale_1h", func(r *redisRow) float64 { return float64(r.Stale1h.Difficulty()) }},
		{"accept_count", func(r *redisRow) float64 { return float64(r.AcceptCount) }},
		{"last_share_ip", func(r *redisRow) float64 { return addressRank(r.LastShareIP) }},
		{"last_share_time", func(r *redisRow) float64 { return float64(shareTime(r)) }},
		{"worker_name", func(r *redisRow) float64 { return textRank(r.Name) }},
		{"miner_agent", func(r *redisRow) float64 { return textRank(r.Agent) }},
	}
}

func indexOf(name string) (redisIndex, bool) {
	all := redisIndexes()
	i := slices.IndexFunc(all, func(x redisIndex) bool { return x.name == name })
	return all[max(i, 0)], i >= 0
}

func indexNames() (names []string) {
	for _, index := range redisIndexes() {
		names = append(names, index.name)
	}
	return names
}

// textRank orders texts by their first 9 characters: letters before digits before all others.
func textRank(text string) float64 {
	const digits, base = 9, 37
	var rank uint64
	for i := range digits {
		place := uint64(0)
		if i < len(text) {
			switch c := text[i] | 0x20; {
			case c >= 'a' && c <= 'z':
				place = uint64(c - 'a')
			case text[i] >= '0' && text[i] <= '9':
				place = 26 + uint64(text[i]-'0')
			default:
				place = 36
			}
		}
		rank = rank*base + place
	}
	return float64(rank)
}

// addressRank orders addresses by the last 8 bytes of their IPv6 form.
func addressRank(text string) float64 {
	ip, err := netip.ParseAddr(cmp.Or(text, "0.0.0.0"))
	if err != nil {
		return 0
	}
	var rank uint64
	full := ip.As16()
	for _, b := range full[8:] {
		rank = rank<<8 | uint64(b)
	}
	return float64(rank)
}
