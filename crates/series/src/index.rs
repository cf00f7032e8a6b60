//! The index: series by id and by label, and everything that can be asked of them.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, RangeInclusive};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::budget::{Budget, Charge, Wait, Waited};
use crate::clock::Clock;
use crate::error::Error;
use crate::group_writer::GroupWriter;
use crate::labels::Labels;
use crate::late::sort_newest_wins;
use crate::persist::{self, Durability, Persist, Recovery};
use crate::point::{Key, MAX_TIME, Point, SeriesId};
use crate::pool::Pool;
use crate::reader::Reader;
use crate::series::{Series, Tail};
use crate::snapshot::Snapshot;
use crate::sync::MutexGuard;
use crate::table::Table;
use crate::ticker::{Tick, Ticker};
use crate::workers::Workers;
use crate::writer::{Partial, Writer};

/// Memory that an index may use for points unless told otherwise.
pub const DEFAULT_BUDGET_BYTES: u64 = 1 << 30;
/// Series that an index may hold unless told otherwise: about 600 bytes each without points.
pub const DEFAULT_MAX_SERIES: u32 = 1 << 20;

/// How often an index applies its retention by itself unless told otherwise: points outlive their age by
/// at most this, and a pass over a million series takes a small part of it.
pub const DEFAULT_RETAIN_EVERY: Duration = Duration::from_secs(10);

/// How an index is set up.
#[derive(Clone)]
pub struct Options {
    /// Where memory for points comes from; `None` for a pool of its own.
    pub pool: Option<Arc<Pool>>,
    /// Memory for points, packed or not.
    pub budget_bytes: u64,
    /// What appends do when the budget is full; each writer can choose otherwise.
    pub wait: Wait,
    /// How many series may ever be registered, removed ones included: ids are not used twice.
    pub max_series: u32,
    /// Threads that merge, pack and settle in the background.
    pub workers: usize,
    /// Whether closed blocks are packed when memory gets short.
    pub pack_under_pressure: bool,
    /// What is thrown away, by itself and by `Index::retain`.
    pub retention: Retention,
    /// How often that happens by itself, files included; `None` leaves it to `Index::retain`. Without a
    /// retention no thread is started.
    pub retain_every: Option<Duration>,
    /// The time that ages are counted from.
    pub clock: Clock,
    /// Whether points survive the process, and where; `None` keeps everything in memory only.
    pub durability: Option<Durability>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            pool: None,
            budget_bytes: DEFAULT_BUDGET_BYTES,
            wait: Wait::Forever,
            max_series: DEFAULT_MAX_SERIES,
            workers: 1,
            pack_under_pressure: true,
            retention: Retention::default(),
            retain_every: Some(DEFAULT_RETAIN_EVERY),
            clock: Clock::unix_millis(),
            durability: None,
        }
    }
}

/// What is thrown away. Whole blocks go, so a few points older than asked may stay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Points older than this, in the unit of the points.
    pub max_age: Option<i64>,
    /// The oldest points beyond this many bytes.
    pub max_bytes: Option<u64>,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) waits: AtomicU64,
    pub(crate) waited_nanos: AtomicU64,
    pub(crate) refused_full: AtomicU64,
    pub(crate) too_old: AtomicU64,
    pub(crate) out_of_range: AtomicU64,
    pub(crate) unknown_series: AtomicU64,
    pub(crate) too_many_series: AtomicU64,
    pub(crate) malformed: AtomicU64,
    pub(crate) busy: AtomicU64,
    pub(crate) poisoned: AtomicU64,
    pub(crate) retained_away: AtomicU64,
    pub(crate) retentions: AtomicU64,
    pub(crate) failed_retentions: AtomicU64,
}

impl Counters {
    /// Counts a refusal by its kind, and hands it on.
    #[cold]
    pub(crate) fn refused(&self, error: Error) -> Error {
        let counter = match &error {
            Error::TooOld { .. } => &self.too_old,
            Error::TimeOutOfRange(_) => &self.out_of_range,
            Error::UnknownSeries(_) => &self.unknown_series,
            Error::TooManySeries(_) => &self.too_many_series,
            Error::RowWidth { .. } | Error::Group(_) => &self.malformed,
            Error::Busy(_) => &self.busy,
            Error::Poisoned(_) => &self.poisoned,
            // Counted where memory is taken, or no refusal of what a caller sent.
            _ => return error,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        error
    }
}

pub(crate) struct Inner {
    pub(crate) table: Table,
    pub(crate) pool: Arc<Pool>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) options: Options,
    pub(crate) keeps_from: AtomicI64,
    pub(crate) counters: Counters,
    pub(crate) persist: OnceLock<Persist>,
    pub(crate) recovery: OnceLock<Recovery>,
    names: Mutex<Names>,
    pub(crate) workers: Workers,
}

#[derive(Default)]
struct Names {
    by_label: BTreeMap<Arc<Labels>, SeriesId>,
    next: u32,
    registered: u32,
}

impl Inner {
    /// Charges the budget; when it is full, first packs what `series` has closed, then waits.
    pub(crate) fn take(
        &self,
        series: &Series,
        bytes: u64,
        wait: Wait,
    ) -> Result<(Charge, Waited), Error> {
        if let Some(charge) = self.budget.try_take(bytes) {
            return Ok((charge, Waited::NOT));
        }
        self.take_under_pressure(series, bytes, wait)
    }

    #[cold]
    fn take_under_pressure(
        &self,
        series: &Series,
        bytes: u64,
        wait: Wait,
    ) -> Result<(Charge, Waited), Error> {
        let start = Instant::now();
        if self.options.pack_under_pressure {
            self.pack_until(series, bytes);
        }
        let taken = self.budget.take(bytes, wait);
        self.counters.waits.fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.counters.waited_nanos.fetch_add(nanos, Ordering::Relaxed);
        if taken.is_err() {
            self.counters.refused_full.fetch_add(1, Ordering::Relaxed);
        }
        taken.map(|(charge, _)| (charge, Waited::since(start)))
    }

    /// Packs closed blocks until `bytes` fit: of this series first, then of all others.
    fn pack_until(&self, series: &Series, bytes: u64) {
        let fits = || self.budget.used() + bytes <= self.budget.limit();
        series.pack(&self.budget, 1);
        for other in self.table.iter() {
            if fits() {
                return;
            }
            other.pack(&self.budget, 1);
        }
    }

    /// Points that cannot become durable although they should are refused.
    #[inline]
    pub(crate) fn check_files(&self) -> Result<(), Error> {
        match self.persist.get() {
            Some(files) if files.is_poisoned() => {
                files.check().map_err(|error| self.counters.refused(error))
            }
            _ => Ok(()),
        }
    }

    fn series(&self, id: SeriesId) -> Result<&Arc<Series>, Error> {
        let live = self.table.get(id).filter(|series| !series.is_removed());
        live.ok_or(Error::UnknownSeries(id))
    }
}

/// An in-memory time-series index. Clones are handles to the same one.
///
/// ```
/// use chronolith_series::{Index, Labels, Point};
/// let index = Index::new();
/// let cpu = index.register(Labels::new([("__name__", "cpu"), ("host", "a")])?)?;
/// index.append(cpu, 1000, 0.25)?;
/// index.append(cpu, 2000, 0.75)?;
/// index.append(cpu, 1500, 0.50)?;      // late points are welcome
/// assert_eq!(index.get(cpu, 1500), Some(0.50));
/// assert_eq!(index.range(cpu, 0..=1800), [Point::new(1000, 0.25), Point::new(1500, 0.50)]);
/// # Ok::<(), chronolith_series::Error>(())
/// ```
#[derive(Clone)]
pub struct Index {
    /// Dropped first: the last handle waits for a last sync before the files are let go.
    tickers: Arc<Vec<Ticker>>,
    pub(crate) inner: Arc<Inner>,
}

impl Default for Index {
    fn default() -> Self {
        Index::new()
    }
}

impl Index {
    /// An index with the default options.
    #[must_use]
    pub fn new() -> Index {
        Index::with(Options::default()).expect("the default options open no file")
    }

    /// An index set up as `options` say; with durability, holding what its directory holds.
    ///
    /// # Errors
    /// None without durability. With it: [`Error::InUse`], [`Error::Corrupt`], [`Error::Io`], or
    /// [`Error::BudgetFull`] if the budget is smaller than what is on disk.
    pub fn with(options: Options) -> Result<Index, Error> {
        let inner = Inner {
            table: Table::new(),
            pool: options.pool.clone().unwrap_or_default(),
            budget: Budget::new(options.budget_bytes),
            keeps_from: AtomicI64::new(i64::MIN),
            counters: Counters::default(),
            names: Mutex::default(),
            persist: OnceLock::new(),
            recovery: OnceLock::new(),
            workers: Workers::start(options.workers),
            options,
        };
        let mut index = Index { tickers: Arc::default(), inner: Arc::new(inner) };
        let mut tickers = Vec::new();
        if let Some(durability) = index.inner.options.durability.clone() {
            tickers.extend(index.open(durability)?);
        }
        tickers.extend(index.retaining()?);
        index.tickers = Arc::new(tickers);
        Ok(index)
    }

    /// Loads what is on disk; the thread that syncs, if there is to be one.
    fn open(&self, durability: Durability) -> Result<Option<Ticker>, Error> {
        let lock = persist::lock(&durability.dir)?;
        let (files, recovery) = persist::load(self, durability, lock)?;
        let every = files.sync_every();
        let _set_once = (self.inner.persist.set(files), self.inner.recovery.set(recovery));
        let Some(every) = every else { return Ok(None) };
        let inner = Arc::clone(&self.inner);
        let sync = move |_| match inner.persist.get().map(|files| files.sync(&inner)) {
            Some(Ok(_)) => ControlFlow::Continue(()),
            // Every later sync and append of a caller reports it, and the statistics do.
            Some(Err(_)) | None => ControlFlow::Break(()),
        };
        Ticker::start("series-sync", every, sync).map(Some)
    }

    /// The thread that retains, if there is to be one.
    fn retaining(&self) -> Result<Option<Ticker>, Error> {
        let options = &self.inner.options;
        let Some(every) = options.retain_every else { return Ok(None) };
        if options.retention == Retention::default() {
            return Ok(None);
        }
        let inner = Arc::clone(&self.inner);
        let retain = move |tick| {
            if tick == Tick::Due {
                inner.retain_by_itself();
            }
            ControlFlow::Continue(())
        };
        Ticker::start("series-retain", every, retain).map(Some)
    }

    /// Registers a series that a file names; one that is there already, or was removed, stays as it is.
    pub(crate) fn restore(&self, id: SeriesId, labels: Option<Arc<Labels>>) {
        let mut names = self.inner.names.lock();
        if self.inner.table.insert(id, Series::new(id, labels.clone())).is_ok() {
            names.registered += 1;
            names.by_label.extend(labels.map(|labels| (labels, id)));
        }
    }

    /// Marks a series removed, so that its id does not come back.
    pub(crate) fn restore_removed(&self, id: SeriesId) -> Result<(), Error> {
        self.restore(id, None);
        match self.remove(id) {
            Err(Error::UnknownSeries(_)) | Ok(()) => Ok(()),
            Err(error) => Err(error),
        }
    }

    // ---- series ----

    /// The id of the series with these labels, registering it the first time.
    ///
    /// # Errors
    /// [`Error::TooManySeries`].
    pub fn register(&self, labels: Labels) -> Result<SeriesId, Error> {
        let mut names = self.inner.names.lock();
        if let Some(id) = names.by_label.get(&labels) {
            return Ok(*id);
        }
        let labels = Arc::new(labels);
        loop {
            let id = SeriesId(names.next);
            self.check_room(&names, id)?;
            names.next += 1;
            if self.inner.table.insert(id, Series::new(id, Some(Arc::clone(&labels)))).is_ok() {
                names.registered += 1;
                names.by_label.insert(Arc::clone(&labels), id);
                self.note(|files| files.note_registered(id, Some(labels)));
                return Ok(id);
            }
        }
    }

    /// Registers a series by an id of the caller's choice; once is enough.
    ///
    /// # Errors
    /// [`Error::TooManySeries`] if `max_series` is not above the id; [`Error::UnknownSeries`] if the
    /// series was removed: ids do not come back.
    pub fn register_id(&self, id: SeriesId) -> Result<SeriesId, Error> {
        let mut names = self.inner.names.lock();
        if self.inner.table.get(id).is_none() {
            self.check_room(&names, id)?;
            let _checked_above = self.inner.table.insert(id, Series::new(id, None));
            names.registered += 1;
            self.note(|files| files.note_registered(id, None));
        }
        self.inner.series(id).map(|series| series.id)
    }

    fn note(&self, note: impl FnOnce(&Persist)) {
        if let Some(files) = self.inner.persist.get() {
            note(files);
        }
    }

    fn check_room(&self, names: &Names, id: SeriesId) -> Result<(), Error> {
        let max = self.inner.options.max_series;
        if id.0 >= max || names.registered >= max {
            return Err(self.inner.counters.refused(Error::TooManySeries(max)));
        }
        Ok(())
    }

    /// The id of the series with these labels, if it is registered.
    #[must_use]
    pub fn find(&self, labels: &Labels) -> Option<SeriesId> {
        self.inner.names.lock().by_label.get(labels).copied()
    }

    /// The labels of a series; `None` if it has none or is not there.
    #[must_use]
    pub fn labels(&self, series: SeriesId) -> Option<Arc<Labels>> {
        self.inner.series(series).ok()?.labels.clone()
    }

    /// All registered series, in the order of their ids.
    #[must_use]
    pub fn series(&self) -> Vec<SeriesId> {
        self.inner.table.iter().map(|series| series.id).collect()
    }

    /// Removes a series and all its points. Its id is not given out again.
    ///
    /// # Errors
    /// [`Error::UnknownSeries`], or [`Error::Busy`] while a [`Writer`] owns it.
    pub fn remove(&self, series: SeriesId) -> Result<(), Error> {
        let series = self.known(series)?;
        let tail = series.tail.try_lock();
        let mut tail = tail.ok_or_else(|| self.inner.counters.refused(Error::Busy(series.id)))?;
        let _only_one = series.merging.lock();
        series.removed.store(true, Ordering::Release);
        tail.open = None;
        series.change(|body| *body = Default::default());
        if let Some(labels) = &series.labels {
            self.inner.names.lock().by_label.remove(labels);
        }
        self.note(|files| files.note_removed(series.id));
        Ok(())
    }

    // ---- appending ----

    /// The right to append to a series; waits while another thread has it.
    ///
    /// # Errors
    /// [`Error::UnknownSeries`]; [`Error::Poisoned`] if points can no longer become durable.
    pub fn writer(&self, series: SeriesId) -> Result<Writer<'_>, Error> {
        let series = self.known(series)?;
        self.owned(series, series.tail.lock())
    }

    /// As [`Index::writer`], waiting at most `wait` for the present owner.
    ///
    /// # Errors
    /// As [`Index::writer`], and [`Error::Busy`].
    pub fn try_writer(&self, series: SeriesId, wait: Duration) -> Result<Writer<'_>, Error> {
        let series = self.known(series)?;
        let tail = series.tail.try_lock_for(wait);
        let tail = tail.ok_or_else(|| self.inner.counters.refused(Error::Busy(series.id)))?;
        self.owned(series, tail)
    }

    fn known(&self, id: SeriesId) -> Result<&Arc<Series>, Error> {
        self.inner.series(id).map_err(|error| self.inner.counters.refused(error))
    }

    fn owned<'i>(
        &'i self,
        series: &'i Arc<Series>,
        tail: MutexGuard<'i, Tail>,
    ) -> Result<Writer<'i>, Error> {
        if series.is_removed() {
            return Err(self.inner.counters.refused(Error::UnknownSeries(series.id)));
        }
        self.inner.check_files()?;
        Ok(Writer::new(&self.inner, series, tail))
    }

    /// The right to append rows to a group of series. Owners are waited for in the order of ids, so two
    /// groups never wait for each other.
    ///
    /// # Errors
    /// [`Error::UnknownSeries`]; [`Error::Group`] if there is no series, or one is named twice.
    pub fn group(&self, series: &[SeriesId]) -> Result<GroupWriter<'_>, Error> {
        let mut order: Vec<usize> = (0..series.len()).collect();
        order.sort_by_key(|at| series[*at]);
        if order.is_empty() {
            return Err(self.inner.counters.refused(Error::Group("it has no series")));
        }
        if order.windows(2).any(|w| series[w[0]] == series[w[1]]) {
            return Err(self.inner.counters.refused(Error::Group("a series is named twice")));
        }
        let mut members: Vec<(usize, Writer<'_>)> = Vec::with_capacity(order.len());
        for at in order {
            members.push((at, self.writer(series[at])?));
        }
        members.sort_by_key(|(at, _)| *at);
        let members = members.into_iter().map(|(_, member)| member).collect();
        Ok(GroupWriter::new(&self.inner, members))
    }

    /// Appends one point, owning the series only for this call.
    ///
    /// # Errors
    /// As [`Writer::append`], and [`Error::UnknownSeries`].
    #[inline]
    pub fn append(&self, series: SeriesId, time: i64, value: f64) -> Result<Waited, Error> {
        self.writer(series)?.append(time, value)
    }

    /// Appends one point, waiting for memory at most as long as `wait` says.
    ///
    /// # Errors
    /// As [`Index::append`].
    pub fn append_within(
        &self,
        series: SeriesId,
        point: Point,
        wait: Wait,
    ) -> Result<Waited, Error> {
        let mut writer = self.writer(series)?;
        writer.set_wait(wait);
        writer.append(point.time, point.value)
    }

    /// Appends many points to one series; any order is stored, in order is fastest.
    ///
    /// # Errors
    /// [`Partial`] says how many points were stored.
    pub fn append_batch(&self, series: SeriesId, points: &[Point]) -> Result<Waited, Partial> {
        let mut writer = self.writer(series).map_err(|error| Partial { stored: 0, error })?;
        writer.extend(points)
    }

    /// Merges all late points that no [`Writer`] owns, with all workers and this thread. Says how many
    /// series still have late points because somebody owns them.
    ///
    /// # Errors
    /// [`Error::Io`] if the system has no memory to give; nothing is lost then.
    pub fn settle(&self) -> Result<usize, Error> {
        let late: Vec<Arc<Series>> = self
            .inner
            .table
            .iter()
            .filter(|series| !series.body.read().late.is_empty())
            .cloned()
            .collect();
        let inner = Arc::clone(&self.inner);
        let outcomes =
            self.inner.workers.for_each(late, move |series| match series.tail.try_lock() {
                Some(tail) => Writer::new(&inner, series, tail).settle().map(|()| 0),
                None => Ok(1),
            });
        outcomes.into_iter().sum()
    }

    // ---- reading ----

    /// The value of a series at a time.
    #[inline]
    #[must_use]
    pub fn get(&self, series: SeriesId, time: i64) -> Option<f64> {
        self.inner.table.get(series)?.get(time)
    }

    /// A reader of its own for a thread that asks often: it locks nothing while nothing changes.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::new(self.clone())
    }

    /// All points of a series in `times`, in order.
    #[must_use]
    pub fn range(&self, series: SeriesId, times: RangeInclusive<i64>) -> Vec<Point> {
        let mut out = Vec::new();
        self.range_into(series, times, &mut out);
        out
    }

    /// As [`Index::range`], appending to `out`, whose capacity is kept from call to call.
    #[inline]
    pub fn range_into(&self, series: SeriesId, times: RangeInclusive<i64>, out: &mut Vec<Point>) {
        let (low, high) = clamp(&times);
        if let Some(series) = self.inner.table.get(series)
            && low <= high
        {
            series.copy(low, high, out);
        }
    }

    /// Shows every point of `keys` to `see`, series by series in order, until it breaks. The points of a
    /// series are those at the moment it is reached; no lock is held while `see` runs.
    pub fn visit(
        &self,
        keys: RangeInclusive<Key>,
        mut see: impl FnMut(SeriesId, Point) -> ControlFlow<()>,
    ) {
        let (from, to) = (*keys.start(), *keys.end());
        let mut points = Vec::new();
        for series in self.inner.table.range(from.series, to.series) {
            let low = if series.id == from.series { from.time } else { -MAX_TIME };
            let high = if series.id == to.series { to.time } else { MAX_TIME };
            let (low, high) = clamp(&(low..=high));
            let view = series.view(low, high);
            for piece in 0..view.pieces() {
                points.clear();
                view.piece(piece, low, high, &mut points);
                for point in &points {
                    if see(series.id, *point).is_break() {
                        return;
                    }
                }
            }
        }
    }

    /// All points of `keys`, across series, in order.
    #[must_use]
    pub fn range_keys(&self, keys: RangeInclusive<Key>) -> Vec<(SeriesId, Point)> {
        let mut out = Vec::new();
        self.visit(keys, |series, point| {
            out.push((series, point));
            ControlFlow::Continue(())
        });
        out
    }

    /// The first `count` points from `start` on, across blocks and series.
    #[must_use]
    pub fn scan_n(&self, start: Key, count: usize) -> Vec<(SeriesId, Point)> {
        let mut out = Vec::with_capacity(count.min(1 << 16));
        let mut points = Vec::new();
        for series in self.inner.table.range(start.series, SeriesId(u32::MAX)) {
            let mut low = if series.id == start.series { start.time } else { -MAX_TIME };
            while low <= MAX_TIME && out.len() < count {
                points.clear();
                low = series.copy_some(low.max(-MAX_TIME), count - out.len(), &mut points);
                let wanted = points.iter().take(count - out.len());
                out.extend(wanted.map(|point| (series.id, *point)));
            }
            if out.len() >= count {
                break;
            }
        }
        out
    }

    /// How many points a series has; late ones that overwrite count twice until they are merged.
    #[must_use]
    pub fn len(&self, series: SeriesId) -> usize {
        self.inner.series(series).map_or(0, |series| series.len())
    }

    /// Whether no series has a point.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inner.table.iter().all(|series| series.len() == 0)
    }

    /// What every series holds now, unchanged by whatever is appended later. Each series is caught at
    /// one moment of its own; [`Index::snapshot_at_once`] catches all at the same moment.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(self.inner.table.iter())
    }

    /// What every series holds at one common moment: owners are asked to let go for it.
    ///
    /// # Errors
    /// [`Error::Busy`] if a [`Writer`] does not let go within `wait`.
    pub fn snapshot_at_once(&self, wait: Duration) -> Result<Snapshot, Error> {
        let deadline = Instant::now() + wait;
        let mut held = Vec::new();
        for series in self.inner.table.iter() {
            let left = deadline.saturating_duration_since(Instant::now());
            held.push(series.tail.try_lock_for(left).ok_or(Error::Busy(series.id))?);
        }
        Ok(self.snapshot())
    }

    /// Packs all closed blocks now, except the newest `keep_raw` of each series.
    pub fn pack(&self, keep_raw: usize) -> usize {
        let inner = Arc::clone(&self.inner);
        let all: Vec<Arc<Series>> = self.inner.table.iter().cloned().collect();
        let pack = move |series: &Arc<Series>| series.pack(&inner.budget, keep_raw);
        self.inner.workers.for_each(all, pack).into_iter().sum()
    }
}

pub(crate) fn clamp(times: &RangeInclusive<i64>) -> (i64, i64) {
    ((*times.start()).max(-MAX_TIME), (*times.end()).min(MAX_TIME))
}

/// Sorts a batch by time, keeping of equal times the one given last: what `append_batch` likes best.
pub fn sort_batch(points: &mut Vec<Point>) {
    sort_newest_wins(points);
}
