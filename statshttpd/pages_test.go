//go:build integration

package statshttpd

import (
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"btcpool/internal/share"
	"btcpool/internal/testkit"
)

var shots = flag.String("shots", "", "keep pictures of the pages that tests open in this `folder`")

// shoot keeps a picture of the whole page, where that is wanted.
func (b *browser) shoot(name string) {
	b.t.Helper()
	if *shots == "" {
		return
	}
	var size struct {
		CSSContentSize struct{ Width, Height float64 }
	}
	b.call("Page.getLayoutMetrics", nil, &size)
	var picture struct{ Data string }
	b.call("Page.captureScreenshot", map[string]any{
		"captureBeyondViewport": true,
		"clip":                  map[string]any{"x": 0, "y": 0, "width": size.CSSContentSize.Width, "height": size.CSSContentSize.Height, "scale": 1},
	}, &picture)
	png, err := base64.StdEncoding.DecodeString(picture.Data)
	if err == nil {
		err = os.MkdirAll(*shots, 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(*shots, strings.ReplaceAll(name, " ", "-")+".png"), png, 0o644)
	}
	if err != nil {
		b.t.Error(err)
	}
}

// pages serves the pages of s and returns the address of the first.
func pages(t *testing.T, s *Service) string {
	t.Helper()
	server := httptest.NewServer(s.Handler())
	t.Cleanup(server.Close)
	t.Cleanup(s.hub.stop)
	return server.URL
}

// axe is Deque's axe-core, which knows what people with other senses need of a page.
func axe(t *testing.T) string {
	t.Helper()
	script, err := os.ReadFile("../.cache/axe-core/package/axe.min.js")
	if err != nil {
		t.Fatalf("%v (run test/install.sh)", err)
	}
	return string(script)
}

// judge waits until the page shows what it asked for, and checks that it is no wider than the screen, that no name became
// markup, that nobody but the pool was asked for anything, and that axe has nothing to say against it.
func (b *browser) judge(page, home, axe string) {
	b.t.Helper()
	b.await("document.documentElement.scrollWidth <= innerWidth", "true")
	if got := b.do(`[...document.querySelectorAll("[id]")].map((e) => e.id).filter((id, i, all) => all.indexOf(id) < i).join()`); got != "" {
		b.t.Errorf("%s: ids of several elements: %s", page, got)
	}
	if got := b.do(`document.querySelectorAll("img:not([src='/logo']), script:not([src^='/assets/']), iframe, object, embed, [style*=url], [onerror], [onload], a[href^='javascript']").length`); got != "0" {
		b.t.Errorf("%s: %s elements came from names", page, got)
	}
	b.mu.Lock()
	for _, address := range b.asked {
		if !strings.HasPrefix(address, home) && address != "about:blank" {
			b.t.Errorf("%s: asked for %s", page, address)
		}
	}
	b.mu.Unlock()
	b.do(`document.getAnimations().forEach((a) => a.finish instanceof Function && a.effect.getComputedTiming().endTime !== Infinity && a.finish())`)
	if b.do("typeof axe") != "object" {
		b.do(axe)
	}
	var answer struct{ Result struct{ Value string } }
	b.call("Runtime.evaluate", map[string]any{
		"expression": `axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) => JSON.stringify(violations.flatMap((v) =>
			v.nodes.map((n) => v.id + ": " + n.target.join(" ") + ": " + n.failureSummary.replaceAll("\n", " ")))))`,
		"awaitPromise": true, "returnByValue": true,
	}, &answer)
	var violations []string
	if err := json.Unmarshal([]byte(answer.Result.Value), &violations); err != nil {
		b.t.Fatalf("%s: axe says %q: %v", page, answer.Result.Value, err)
	}
	for _, v := range violations {
		b.t.Errorf("%s: %s", page, v)
	}
	b.check(page)
	b.shoot(page)
}

// like has the browser be one of that width, theme and language.
func (b *browser) like(width int, theme, language string) {
	b.t.Helper()
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 700}, nil)
	b.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": theme}}}, nil)
	var version struct{ UserAgent string }
	b.call("Browser.getVersion", nil, &version)
	b.call("Emulation.setUserAgentOverride", map[string]any{"userAgent": version.UserAgent, "acceptLanguage": language}, nil)
}

func (b *browser) click(selector string) {
	b.t.Helper()
	b.await(fmt.Sprintf("document.querySelector(%q) !== null", selector), "true")
	b.do(fmt.Sprintf("document.querySelector(%q).click()", selector))
}

const (
	minerName = `document.getElementById("miner-name").textContent`
	homeShown = `!document.getElementById("main").hidden && document.getElementById("miner").hidden && !document.getElementById("servers").hidden &&
		!document.getElementById("rejects").hidden && document.querySelectorAll("#workers tbody tr").length > 10 && document.querySelectorAll("#blocks tbody tr").length === 6`
	unknownShown = `!document.getElementById("miner-unknown").hidden && document.getElementById("details").hidden`
)

func minerShown(panel string) string {
	return fmt.Sprintf(`document.getElementById("main").hidden && !document.getElementById(%q).hidden && !document.getElementById("miner-rejects").hidden &&
		document.querySelector("#miner-hashrate .line") !== null && (%q !== "machines" || document.querySelector("#machines tbody tr") !== null)`, panel, panel)
}

// TestPagesInBrowser opens each page on a screen and on a phone, dark and light, in English and Chinese. Names are
// hostile.
func TestPagesInBrowser(t *testing.T) {
	s := newTestService(t, time.Now().Truncate(time.Second))
	s.farm(t)
	home := pages(t, s)
	rules := axe(t)
	b := openBrowser(t)
	for _, language := range []string{"en", "zh-CN"} {
		for _, page := range []struct{ name, path, shown string }{
			{"home", "/", homeShown},
			{"user", "/#/user/aurora", minerShown("machines")},
			{"worker", "/#/worker/aurora/s21-02", minerShown("details")},
			{"hostile user", "/#/user/" + url.PathEscape(hostileUser), minerShown("machines")},
			{"hostile worker", "/#/worker/" + url.PathEscape(hostileUser) + "/" + url.PathEscape(hostileWorker), minerShown("details")},
			{"unknown", "/#/worker/nobody/" + url.PathEscape(hostileWorker), unknownShown},
		} {
			b.like(1280, "dark", language)
			b.open(home + page.path)
			b.await(page.shown, "true")
			b.await(`document.documentElement.lang + document.querySelector(".language").textContent`, map[string]string{"en": "en中文", "zh-CN": "zh-HansEN"}[language])
			b.weigh(page.name + " " + language)
			for _, width := range []int{1280, 390} {
				for _, theme := range []string{"dark", "light"} {
					b.like(width, theme, language)
					on := fmt.Sprintf("%s %d %s %s", page.name, width, theme, language)
					if bright := b.do(`getComputedStyle(document.body).backgroundColor`); (bright == "rgb(12, 14, 18)") != (theme == "dark") {
						t.Errorf("%s: the ground is %s", on, bright)
					}
					b.judge(on, home, rules)
				}
			}
		}
	}
}

// TestWayThroughPages goes through the pages as a miner does: by clicks, back, reload and search.
func TestWayThroughPages(t *testing.T) {
	s := newTestService(t, time.Now().Truncate(time.Second))
	s.farm(t)
	home := pages(t, s)
	b := openBrowser(t)
	b.like(1280, "light", "en")
	b.open(home + "/")
	b.await(homeShown, "true")
	b.await(`document.querySelector("#blocks tbody a").href`, "https://mempool.space/block/"+b.do(`document.querySelector("#blocks tbody tr").dataset.key`))
	b.click("#workers tbody a[href*='onerror']")
	b.await(minerShown("details"), "true")
	b.await(minerName, hostileWorker)
	b.click("#crumbs a:last-child")
	b.await(minerShown("machines"), "true")
	b.await(minerName, hostileUser)
	b.do("history.back()")
	b.await(minerName, hostileWorker)
	b.do("location.reload()")
	b.await(minerShown("details"), "true")
	b.await(minerName, hostileWorker)

	for _, text := range []struct{ typed, found string }{{"s17-retired", "s17-retired"}, {"aurora", "aurora"}, {"aurora.s21-02", "s21-02"}, {hostileWorker, hostileWorker}} {
		b.do(fmt.Sprintf(`document.getElementById("find-text").value = %q; document.getElementById("find").requestSubmit()`, text.typed))
		b.await(minerName, text.found)
	}
	b.click(".brand a")
	b.await(homeShown, "true")
	b.click("#blocks tbody .finder")
	b.await(minerName, "s21-02")

	b.open(home + "/#/user/aurora")
	b.await(minerShown("machines"), "true")
	first := `document.querySelector("#machines tbody .name").textContent`
	b.await(first, "s17-retired") // is silent
	b.click("#machines [data-sort=name]")
	b.await(`document.querySelector("#machines [aria-sort]").getAttribute("aria-sort")`, "ascending")
	b.await(first, "s17-retired")
	b.click("#machines [data-name=online]")
	b.await(first, "s21-01")
	const chart = "#miner-hashrate "
	label := func(of string) string {
		return fmt.Sprintf(`document.querySelector("#miner-hashrate .chart").getAttribute("aria-label").startsWith("Hashrate of the last %s: at its end")`, of)
	}
	for _, of := range []string{"day", "week", "month", "year"} {
		b.click(chart + "[data-name=" + of + "]")
		b.await(label(of), "true")
	}
	b.check("all ranges")
	b.do(`const askServer = fetch; fetch = (what, ...more) => String(what).includes("step=minute") ? Promise.reject(new Error("away")) : askServer(what, ...more)`)
	b.click(chart + "[data-name=day]")
	b.await(`document.querySelector("#miner-hashrate [aria-pressed=true]").dataset.name`, "year") // that is shown still
	b.await(label("year"), "true")
	b.check("the way")
}

// TestStoppedQuestion has what was asked and stopped, as when a tab is hidden, be asked again at the next look.
func TestStoppedQuestion(t *testing.T) {
	s := newTestService(t, time.Now().Truncate(time.Second))
	server := httptest.NewServer(s.Handler())
	t.Cleanup(server.Close)
	t.Cleanup(func() { s.hub.stop() })
	b := openBrowser(t)
	b.open(server.URL + "/")
	b.do(`import("/assets/feed.js").then(({ Question }) => {
		let asked = 0;
		const question = new Question(60_000, async (signal) => {
			asked++;
			await new Promise((done) => setTimeout(done, 20));
			signal.throwIfAborted();
		}, () => { window.outcome = asked; });
		question.look();
		question.stop();
		question.look();
	})`)
	b.await("window.outcome", "2")
}

// TestPushToPages has a page show what the pool pushes, without asking for it; do nothing while it is hidden; say that
// the pool has gone; and ask where nothing can be pushed.
func TestPushToPages(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	s := newTestService(t, now)
	s.small(t)
	down := make(chan bool, 1)
	down <- false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		is := <-down
		down <- is
		if is {
			panic(http.ErrAbortHandler)
		}
		s.Handler().ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { s.hub.stop() })
	isDown := func(is bool) { <-down; down <- is }

	b := openBrowser(t)
	b.like(1280, "dark", "en")
	state := `document.getElementById("link").dataset.state`
	chain := `document.getElementById("chain").textContent`
	b.open(server.URL + "/")
	b.await(state, "live")
	listening := func(want int) {
		t.Helper()
		testkit.Eventually(t, fmt.Sprintf("%d listen", want), func() bool { return s.hub.size() == want })
	}
	listening(1)
	asked := func() (all []string) {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, address := range b.asked {
			if strings.HasSuffix(address, "/api/v1/pool") || strings.Contains(address, "/events") {
				all = append(all, address)
			}
		}
		return all
	}
	isEvents := func(address string) bool { return strings.Contains(address, "/events") }
	for _, name := range []string{"one", "two", "three"} {
		s.cfg.Network = name
		s.hub.turn(func() bool { return true })
		b.await(chain, name)
	}
	if got := asked(); len(got) < 2 || slices.ContainsFunc(got[:len(got)-1], isEvents) || !isEvents(got[len(got)-1]) {
		t.Errorf("asked for %v, want for the pool, and then for events once", got)
	}

	hide := func(is bool) {
		b.do(fmt.Sprintf(`Object.defineProperty(document, "hidden", { value: %t, configurable: true }); document.dispatchEvent(new Event("visibilitychange"))`, is))
	}
	hide(true)
	listening(0)
	s.cfg.Network = "four"
	s.hub.turn(func() bool { return true })
	b.mu.Lock()
	before := len(b.asked)
	b.mu.Unlock()
	b.do(`new Promise((done) => setTimeout(done, 0))`)
	b.await(chain, "three")
	b.mu.Lock()
	if len(b.asked) != before {
		t.Errorf("hidden, the page asked for %v", b.asked[before:])
	}
	b.mu.Unlock()
	hide(false)
	b.await(chain, "four")
	b.check("pushed")

	isDown(true)
	s.hub.stop() // ends what is open
	b.await(state, "lost")
	b.await(`document.getElementById("link-text").textContent.startsWith("Connection lost, figures of ")`, "true")
	b.await(`document.body.classList.contains("old")`, "true")
	listening(0)
	b.mu.Lock()
	b.faults = nil // a browser says that nobody answered
	b.mu.Unlock()
	s.hub = newHub()
	s.cfg.Network = "five"
	isDown(false)
	b.await(state, "live")
	b.await(chain, "five")
	b.await(`document.body.classList.contains("old")`, "false")
	listening(1)
	b.check("back")

	s.cfg.MaxEventClients = 0
	b.open(server.URL + "/#/user/ann")
	b.await(minerName, "ann")
	b.await(state, "live")
	testkit.Eventually(t, "events are asked for", func() bool { return slices.ContainsFunc(asked(), isEvents) })
	s.cfg.Network = "six"
	b.await(chain, "six")
	listening(0)
	if got := asked(); isEvents(got[len(got)-1]) {
		t.Errorf("asked for %v, want for events once, and for the pool again and again", got)
	}
}

// TestNoTextOfItsOwn has all texts stand in brackets, and finds what a page says outside of them: it would be in no
// language. Names, hashes and addresses are marked as what nobody translates; times are the browser's.
func TestNoTextOfItsOwn(t *testing.T) {
	s := newTestService(t, time.Now().Truncate(time.Second))
	s.farm(t)
	s.files["messages.en.js"] = regexp.MustCompile(`(?m)((?:^  "[a-z0-9_.]+"|"one"|"other"): )"((?:[^"\\]|\\.)*)"`).ReplaceAll([]byte(webFile(t, "messages.en.js")), []byte(`$1"⟦$2⟧"`))
	home := pages(t, s)
	b := openBrowser(t)
	b.like(1280, "dark", "en")
	for _, page := range []struct{ path, shown string }{
		{"/", homeShown},
		{"/#/user/aurora", minerShown("machines")},
		{"/#/worker/aurora/s21-02", minerShown("details")},
		{"/#/worker/nobody/one", unknownShown},
	} {
		b.open(home + page.path)
		b.await(page.shown, "true")
		said := b.do(`(() => {
			const mine = "[translate=no], time, noscript, script, style, .tick";
			const bare = (text) => {
				for (let before; before !== text;) [before, text] = [text, text.replace(/⟦[^⟦⟧]*⟧/g, "")];
				return text;
			};
			const found = [];
			const look = (el, text) => { if (/\p{L}/u.test(bare(text)) && !el.closest(mine)) found.push(text); };
			const all = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
			while (all.nextNode()) look(all.currentNode.parentElement, all.currentNode.data);
			for (const el of document.body.querySelectorAll("*")) {
				for (const name of ["aria-label", "title", "placeholder", "alt"]) look(el, el.getAttribute(name) ?? "");
			}
			return found.join("\n");
		})()`)
		if said != "" {
			t.Errorf("%s says by itself:\n%s", page.path, said)
		}
		b.check(page.path)
	}
}

// TestLanguageIsKept has somebody choose a language, which outlives the page.
func TestLanguageIsKept(t *testing.T) {
	s := newTestService(t, time.Now().Truncate(time.Second))
	s.small(t)
	home := pages(t, s)
	b := openBrowser(t)
	b.like(1280, "dark", "de,zh-TW;q=0.9,en;q=0.8")
	lang := `document.documentElement.lang`
	b.open(home + "/")
	b.await(lang, "zh-Hans")
	b.await(`document.getElementById("link-text").textContent`, messages(t, "zh")["link.live"])
	b.click(".language")
	b.await(lang, "en")
	b.open(home + "/#/user/ann")
	b.await(minerName, "ann")
	b.await(lang, "en")
	b.check("language")
}

// TestEmptyPoolInBrowser is the page of a pool that nobody mines at yet: how to connect comes first.
func TestEmptyPoolInBrowser(t *testing.T) {
	s := newTestService(t, time.Now().Truncate(time.Second))
	s.network.Store(&network{Height: 946_124, Difficulty: 128.4e12, JobTime: s.now()})
	s.places, _ = ParsePlaces("stratum+tcp://:3333 for ASICs, stratum+ssl://pool.example.org:3334 the same, stratum+tcp://pool.example.org:3335 for farm proxies")
	s.look(t)
	home := pages(t, s)
	rules := axe(t)
	b := openBrowser(t)
	for _, width := range []int{1280, 390} {
		b.like(width, "light", "en")
		b.open(home + "/")
		b.await(`!document.getElementById("main").hidden && document.querySelector("#main > :not([hidden])").id`, "connect")
		b.await(`[...document.querySelectorAll("#places code")].map((e) => e.textContent).join(" ")`, "stratum+tcp://127.0.0.1:3333 stratum+ssl://pool.example.org:3334 stratum+tcp://pool.example.org:3335")
		b.await(`document.querySelector("#blocks .none").textContent`, messages(t, "en")["blocks.none"])
		b.judge(fmt.Sprintf("empty %d light en", width), home, rules)
	}
}

// TestThousandsInBrowser is about a user with thousands of machines, whose names are long.
func TestThousandsInBrowser(t *testing.T) {
	s := newTestService(t, time.Now().Truncate(time.Second))
	s.board = newBoard(5000)
	const machines = 3000
	for i := range machines {
		id := s.connect(t, s.now().Add(-time.Minute), 1, "bigfarm", fmt.Sprintf("%04d-%s", i, strings.Repeat("hall.row.shelf_", 7)), "bmminer/2.0.0 S21")
		s.mine(t, share.Share{UserID: 1, WorkerID: id, Difficulty: 20, Time: s.now().Unix() - int64(i%50), Status: share.StatusAccept})
	}
	s.network.Store(&network{Height: 946_124, Difficulty: 128.4e12, JobTime: s.now()})
	s.look(t)
	home := pages(t, s)
	rules := axe(t)
	b := openBrowser(t)
	for _, width := range []int{1280, 390} {
		b.like(width, "dark", "en")
		for _, page := range []struct{ name, path, list string }{{"home", "/", "workers"}, {"user", "/#/user/bigfarm", "machines"}} {
			b.open(home + page.path)
			rows := fmt.Sprintf(`document.querySelectorAll("#%s tbody tr").length + " " + document.querySelector("#%s .pager").textContent`, page.list, page.list)
			b.await(rows, "25 1–25 of 3,000")
			b.weigh(page.name + " of thousands")
			b.click("#" + page.list + " .next")
			b.await(rows, "25 26–50 of 3,000")
			b.judge(fmt.Sprintf("thousands %s %d dark en", page.name, width), home, rules)
		}
	}
}

// TestOwnPool has the pages of an operator who has set all there is to set, with what could be taken for markup.
func TestOwnPool(t *testing.T) {
	s := newTestService(t, time.Now().Truncate(time.Second))
	s.farm(t)
	file := filepath.Join(t.TempDir(), "logo")
	svg := `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="28" height="28" onload="alert(4)"><script>alert(5)</script>
<image xlink:href="` + "http://127.0.0.1:1/picture.png" + `"/><rect width="28" height="28" fill="#3366ff"/></svg>`
	if err := os.WriteFile(file, []byte(svg), 0o600); err != nil {
		t.Fatal(err)
	}
	own := Dashboard{
		Name: "<b>Blue & Co</b>", Logo: file, AccentDark: "#202020", AccentLight: "#ffff00", Welcome: "Fee 1 %.\n<script>alert(6)</script>", WelcomeZH: "手续费 1 %。",
		UserExample: "bc1q…address.worker", Links: []Link{{Text: "<i>Help</i>", TextZH: "帮助", URL: "https://example.org/help?a=1&b=2"}},
		Explorers: map[string]string{"nmc": "https://example.org/nmc/{hash}", "rsk": "", "mainnet": "https://example.org/{height}"},
	}
	if err := own.Validate(); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.logo, err = own.readLogo(); err != nil {
		t.Fatal(err)
	}
	s.files = own.files()
	home := pages(t, s)
	rules := axe(t)
	b := openBrowser(t)
	for _, theme := range []string{"dark", "light"} {
		for _, language := range []string{"en", "zh"} {
			b.like(1280, theme, language)
			b.open(home + "/")
			b.await(homeShown, "true")
			zh := language == "zh"
			choose := func(one, other string) string {
				if zh {
					return other
				}
				return one
			}
			for script, want := range map[string]string{
				`document.getElementById("pool-name").textContent`:                    own.Name,
				`document.title.split(" · ").at(-1)`:                                  own.Name,
				`document.getElementById("welcome").textContent`:                      choose(own.Welcome, own.WelcomeZH),
				`document.getElementById("user-example").textContent`:                 own.UserExample,
				`document.querySelector("#links span a").textContent`:                 choose(own.Links[0].Text, own.Links[0].TextZH),
				`document.querySelector("#links span a").href`:                        own.Links[0].URL,
				`document.querySelector("#blocks tbody a").href`:                      "https://example.org/946123",
				`document.querySelectorAll("#merged .hash-link").length`:              "1",
				`document.querySelector(".brand img").naturalWidth`:                   "28",
				`getComputedStyle(document.body).getPropertyValue("--accent") === ""`: "false",
			} {
				b.await(script, want)
			}
			b.judge("own 1280 "+theme+" "+language, home, rules)
		}
	}
	b.open(home + "/logo")
	b.await(`document.documentElement.localName`, "svg")
	b.await(`document.readyState`, "complete")
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, fault := range b.faults {
		if strings.Contains(fault, "javascriptDialogOpening") {
			t.Errorf("the logo ran a script: %s", fault)
		}
	}
}
