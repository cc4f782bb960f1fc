// Written from the Rust definitions by tests/integration/typescript.rs; do not edit.
// To write it anew: TIDINGS_WRITE=1 cargo test --test integration typescript

/** The answer to a submission. */
export interface Accepted {
  /** The dedupe key was known: this is the job that has had it. */
  existing: boolean;
  /** Names the job. */
  jobId: JobId;
  /** Where the job is in its life. */
  state: TestState;
  /** Names the test that it runs: its channel is `test-progress-{testId}`. */
  testId: TestId;
}

/** How full flushes are, in messages. */
export interface Batches {
  mean: number;
  p99: number;
}

/** What everybody is to be told: `level` and `message`, or `data` of one's own. */
export interface Broadcast {
  /** The payload, instead of `level` and `message`. */
  data?: unknown;
  /** What happened, for programs; `system:alert` unless told. */
  event?: EventName;
  /** The sender's own id for it. Sending it again returns the first position instead of telling it twice. */
  id?: MessageId;
  /** How serious it is; with `message`. */
  level?: string;
  /** What happened; with `level`. */
  message?: string;
}

/** Why a job is cancelled. The whole body may be left out. */
export interface CancelJob {
  /** Stands in `test:cancelled`. */
  reason?: string;
}

/** What a change did. */
export interface Changed {
  /** How many were changed; the others were so already. */
  changed: number;
  /** How many the list still has: unread ones after reading, offline ones after confirming. */
  total: number;
}

/** Names a channel, such as `test-progress-stress_123`; the Socket.IO room has the same name. */
export type ChannelName = string;

/** One thing that was looked at. */
export interface Check {
  /** What is wrong. */
  detail?: string;
  /** Whether it is as it should be. */
  ok: boolean;
}

/** Which connections to end. Without `connectionIds`, or without a body, those that are dead. */
export interface Cleanup {
  /** These, dead or not; those that are gone already are passed over. */
  connectionIds?: string[];
}

/** How many connections were ended. */
export interface Closed {
  /** So many. */
  closed: number;
}

/** A page of connections. */
export interface Connections {
  /** By name. */
  connections: OpenConnection[];
  /** The `cursor` of the next page, if there is one. */
  next?: string;
  /** How many there are in all. */
  total: number;
}

/** How many test cases ended how. */
export interface Counts {
  /** Failed so far. */
  failed: number;
  /** Passed so far. */
  passed: number;
  /** Skipped so far. */
  skipped: number;
  /** How many there will be, once that is known. */
  total?: number;
}

/** The end of a registered test. */
export interface End {
  /** The attempt that ends. */
  attempt: number;
  /** How long it took; the time since it began unless told. */
  durationMs?: number;
  /** Why it failed, or was cancelled; `tests_failed` unless told. */
  error?: TestError;
  /** What happened last. */
  events?: Happening[];
  /** The test cases that failed. */
  failures?: Failure[];
  /** Its lease. */
  lease: string;
  /** How. */
  outcome: Verdict;
  /** What was found. */
  results?: Record<string, unknown>;
}

/** The answer to an end. */
export interface Ended {
  /** How the test ended. */
  state: TestState;
}

/** Marks an unbroken past of a channel. While it stays the same, offsets rise by exactly one per message; it changes when the channel's past can no longer be vouched for. */
export type Epoch = string;

/** When a test will probably end, in ms from the message that says so. */
export interface EtaMs {
  /** Hardly after. */
  high: number;
  /** Not before. */
  low: number;
}

/** What happened: `test:progress`, `queue:job:added`, `custom:anything`. */
export type EventName = string;

/** A test case that failed. */
export interface Failure {
  /** How it did in the runs before this one. */
  history?: TrackRecord;
  /** Why. */
  message: string;
  /** Its name as the runner tells it. */
  name: string;
  /** The last lines that it printed. */
  output?: string;
}

/** Who the client is here, and what holds. */
export interface Greeting {
  /** The client's name for its device; the connection's where it gave none. */
  clientId: string;
  /** Names the connection. */
  connectionId: string;
  /** When its token ends, and the connection with it, in ms since the Unix epoch. */
  expiresAt?: number;
  /** When a silent connection ends. */
  heartbeat: Heartbeat;
  /** How much the client may do. */
  limits: Limits;
  /** The node that holds the connection. */
  node: string;
  /** The server's clock, in ms since the Unix epoch. */
  serverTime: number;
  /** Who it is. */
  userId?: UserId;
}

/** One thing that happened. */
export interface Happening {
  /** As in `test:progress`, in `test:log`, or anything. */
  data: Record<string, unknown>;
  /** `progress`, `log` or `custom:…` */
  event: string;
  /** Names it within the job: what was told under this name before is not told again. */
  id?: string;
}

/** The process is alive. */
export interface Health {
  /** Always `ok`. */
  status: string;
}

/** When a silent connection ends. */
export interface Heartbeat {
  /** How often the server asks. */
  intervalMs: number;
  /** How long it waits for the answer. */
  timeoutMs: number;
}

/** A message of an inbox: the message itself, and what became of it. */
export type InboxMessage = {  /** Where it stands. */  channel: ChannelName;  /** How many messages right before this one the receiver was spared. */  conflated?: number;  /** The payload. */  data: unknown;  /** The unbroken past that `offset` counts in. */  epoch: Epoch;  /** What happened. */  event: EventName;  /** Unique in its channel for as long as the channel's history lives. */  id: MessageId;  /** Its number in the channel, from 1. */  offset: number;  /** 1 low, 2 normal, 3 high, 4 critical. */  priority: Priority;  /** When the server accepted it, in ms since the Unix epoch. */  timestamp: number;  /** Whom it concerns or who sent it. */  userId?: UserId;  [more: string]: unknown; } & {  /** When it was first written to a device, in ms since the Unix epoch. */  deliveredAt?: number;  /** When it was read, in ms since the Unix epoch. */  readAt?: number;  /** What became of it. */  status: Status; };

/** A page of an inbox. */
export interface InboxMessages {
  /** Oldest first. */
  messages: InboxMessage[];
  /** Where the next page begins, if there is more. */
  next?: string;
  /** How many the whole list has, exactly. */
  total: number;
}

/** What is in all inboxes together. */
export interface InboxStats {
  /** Notifications that are unread. */
  unread: number;
}

/** One request to run a test, as the queue keeps it. */
export interface Job {
  /** The newest attempt, from 1; 0 before the first. */
  attempt: number;
  /** Somebody asked to cancel the running attempt. */
  cancelRequested: boolean;
  /** What the runner is told. */
  config: Record<string, unknown>;
  /** When it was submitted, in ms since the Unix epoch. */
  createdAt: number;
  /** A second submission with the same key returns this job. */
  dedupeKey?: string;
  /** When it ended. */
  endedAt?: number;
  /** Why the newest attempt failed. */
  error?: TestError;
  /** Names the job. */
  jobId: JobId;
  /** How long its holder may be silent: it runs outside of all workers. */
  leaseMs?: number;
  /** The queue gives up after this many. */
  maxAttempts: number;
  /** What its runs have in common: with others of this name it shares its history. */
  name?: string;
  /** Higher ones run first. */
  priority: Priority;
  /** When it may start: the delay of its submission or the back-off before its next attempt. */
  runAt?: number;
  /** When the newest attempt began. */
  startedAt?: number;
  /** Where it is in its life. */
  state: TestState;
  /** The team that it belongs to. */
  teamId?: string;
  /** The test that it runs. */
  testId: TestId;
  /** Which runner handles it: `stress`, `command`, … */
  testType: string;
  /** How long an attempt may take; the runner's own limit if absent. */
  timeoutMs?: number;
  /** The trace that it belongs to, as W3C has it: that of its submission. */
  traceparent?: string;
  /** Who submitted it. */
  userId?: UserId;
  /** Why it does not start, where that is not plain waiting for its turn. */
  waiting?: string;
  /** Who runs, or ran, the newest attempt. */
  workerId?: WorkerId;
}

/** What the data of a `queue:job:*` message says. */
export interface JobData {
  /** The newest attempt, from 1; 0 before the first. */
  attempt: number;
  /** Why the newest attempt failed. */
  error?: TestError;
  /** Which job. */
  jobId: string;
  /** Its new priority. */
  priority?: Priority;
  /** 0 to 100. */
  progress?: number;
  /** How many jobs wait now. */
  queueDepth?: number;
  /** When it may start, in ms since the Unix epoch. */
  runAt?: number;
  /** Where the job is in its life. */
  state: TestState;
  /** The test that it runs. */
  testId: string;
  /** `stress`, `command`, … */
  testType: string;
}

/** Names a job: one request to run a test. */
export type JobId = string;

/** A page of jobs. */
export interface Jobs {
  /** Newest first. */
  jobs: Job[];
  /** The `cursor` of the next page, if there is one. */
  next?: string;
}

/** The acknowledgement of a join. */
export interface JoinAck {
  /** The epoch of the captured top. */
  epoch: Epoch;
  /** The offset of the captured top. */
  offset: number;
  /** Always true; refusals have a shape of their own. */
  ok: boolean;
  /** Whether everything that was missed follows. */
  recovered: boolean;
  /** How many missed messages follow. */
  replayed: number;
  /** The channel. */
  room: ChannelName;
  /** After what they follow, where the receiver did not say it itself. */
  since?: Position;
  /** The state of the test at the captured top. */
  snapshot?: Snapshot;
}

/** Milliseconds that so many in a hundred kept below, as closely as the buckets of `/metrics` tell. */
export interface Latency {
  p50: number;
  p90: number;
  p99: number;
}

/** How much a connection may do. */
export interface Limits {
  /** So many connections may the user have, where that is limited. */
  connectionsPerUser?: number;
  /** So many events may it send in a second, where that is limited. */
  eventsPerSecond?: number;
  /** After so long in no room and in silence it is ended. */
  idleTimeoutMs: number;
  /** The most data that one message may carry. */
  messageBytes: number;
  /** So many messages may its user, or its address, publish in a second, where that is limited. */
  publishesPerSecond?: number;
  /** In so many rooms may it be. */
  roomsPerConnection: number;
  /** In so many different rooms may all connections of the user be, where that is limited. */
  roomsPerUser?: number;
}

/** What is logged. */
export interface Logged {
  /** A level (`off`, `error`, `warn`, `info`, `debug`, `trace`), or directives. */
  level: string;
}

/** A message as a receiver reads it. */
export interface Message {
  /** Where it stands. */
  channel: ChannelName;
  /** How many messages right before this one the receiver was spared. */
  conflated?: number;
  /** The payload. */
  data: unknown;
  /** The unbroken past that `offset` counts in. */
  epoch: Epoch;
  /** What happened. */
  event: EventName;
  /** Unique in its channel for as long as the channel's history lives. */
  id: MessageId;
  /** Its number in the channel, from 1. */
  offset: number;
  /** 1 low, 2 normal, 3 high, 4 critical. */
  priority: Priority;
  /** When the server accepted it, in ms since the Unix epoch. */
  timestamp: number;
  /** Whom it concerns or who sent it. */
  userId?: UserId;
  [more: string]: unknown;
}

/** Names a message; unique in its channel for as long as the channel's history lives. */
export type MessageId = string;

/** Which messages. */
export interface MessageIds {
  /** Their ids; all of them are changed, or none. */
  messageIds: MessageId[];
}

/** A message as it is sent. Fields that do not stand here pass through untouched. */
export interface MessageToPublish {
  /** Where it is to stand. */
  channel: ChannelName;
  /** The payload. */
  data: unknown;
  /** What happened; the channel has to carry it. */
  event: EventName;
  /** The sender's own id for it. Sending it again returns the first position instead of adding a message. */
  id?: MessageId;
  /** Its priority, if not the channel's own for this event. */
  priority?: Priority;
  /** Whom it concerns or who sent it; the user of `X-User-Id` unless told. */
  userId?: UserId;
}

/** What a user is to be told. Fields that do not stand here become a part of the message's data as well. */
export interface MessageToUser {
  /** The rest of it. */
  body?: string;
  /** The sender's own id for it. Sending it again returns the first position instead of notifying twice. */
  id?: MessageId;
  /** Its priority, if not the channel's own. */
  priority?: Priority;
  /** What it is about, in a few words. */
  title: string;
}

/** What one node has now. */
export type NodeStats = Work & {  /** Its open connections. */  connections: number;  /** Names it. */  node: string; };

/** An open connection. */
export interface OpenConnection {
  /** The client's name for its device. */
  clientId: string;
  /** When it came, in ms since the Unix epoch. */
  connectedAt: number;
  /** Names it. */
  connectionId: string;
  /** The node that holds it, where there are several. */
  node?: string;
  /** The rooms that it is in, by name. */
  rooms: ChannelName[];
  /** What carries it now: `websocket` or `polling`. */
  transport?: string;
  /** Whose it is. */
  userId?: UserId;
}

/** What became of one message of an array. */
export type Outcome = Placed | {  /** Why. */  error: Refusal; };

/** Messages of one priority. */
export interface Passed {
  /** Handed to sockets. */
  deliveries: number;
  /** Appended. */
  publications: number;
}

/** A part of the queue that is held back. Neither `testType` nor `suite`: all of it. */
export interface Pause {
  /** Who paused it. */
  by?: UserId;
  /** Why. */
  reason?: string;
  /** Since when, in ms since the Unix epoch. */
  since: number;
  /** Only those that run this suite. */
  suite?: string;
  /** Only the jobs of this test type. */
  testType?: string;
}

/** What the data of `queue:paused` and `queue:resumed` says. */
export interface PauseData {
  /** Who paused it. */
  by?: string;
  /** Why it was paused. */
  reason?: string;
  /** Who resumed it. */
  resumedBy?: string;
  /** Since when it was held back, in ms since the Unix epoch. */
  since: number;
  /** Only those that run this suite. */
  suite?: string;
  /** Only the jobs of this test type; all of the queue if absent. */
  testType?: string;
}

/** What is to be held back: everything if the body is left out. */
export interface PauseQueue {
  /** Why: whose job waits is told. */
  reason?: string;
  /** Only the jobs of the test type `command` that run this suite. */
  suite?: string;
  /** Only the jobs of this test type. */
  testType?: string;
}

/** Where a message stands. */
export interface Placed {
  /** The epoch of its channel. */
  epoch: Epoch;
  /** Its id: the sender's, or the one that the server gave it. */
  id: MessageId;
  /** Its number in the channel, from 1. */
  offset: number;
}

/** A place in a channel: offsets start at 1; offset 0 stands before the first message. */
export interface Position {
  /** The unbroken past that `offset` counts in. */
  epoch: Epoch;
  /** How many messages of that past are at or before this place. */
  offset: number;
}

/** 1 low, 2 normal, 3 high, 4 critical */
export type Priority = number;

/** Why a request was not served (RFC 9457). */
export interface Problem {
  /** What happened, for programs: it stays the same over versions. */
  code: string;
  /** What happened here, for people. */
  detail: string;
  /** The channel's epoch now (`epoch_changed`, `ahead_of_top`). */
  epoch?: Epoch;
  /** Names the request, as `x-request-id` does: it stands in the server's log, too. */
  requestId?: string;
  /** The HTTP status. */
  status: number;
  /** The phrase of the status. */
  title: string;
  /** The offset of the channel's newest message now (`epoch_changed`, `ahead_of_top`). */
  top?: number;
  /** Always `about:blank`: what happened is told by `code`. */
  type: string;
}

/** One message, or up to 1,000. */
export type Publication = MessageToPublish | MessageToPublish[];

/** What became of an array of messages. */
export interface PublishResults {
  /** One entry for each message, in the same order. */
  results: Outcome[];
}

/** What the queue is told by people. */
export interface QueueState {
  /** What is held back. */
  paused: Pause[];
}

/** Whether the server wants requests. */
export interface Ready {
  /** What was looked at, by name: `server`, `store`. */
  checks: Record<string, Check>;
  /** `ok`, `draining` or `unavailable`. */
  status: string;
}

/** A notification that was taken back. */
export interface RecalledMessage {
  /** The epoch of the channel that tells of it; of the last one if there are several. */
  epoch: Epoch;
  /** Names the notification. */
  id: MessageId;
  /** In how many inboxes. */
  inboxes: number;
  /** The place of `user:notification:recalled` there. */
  offset: number;
  /** What it is now. */
  status: Status;
}

/** How joins with a position ended. */
export interface Recoveries {
  /** They got what they had missed. */
  recovered: number;
  /** Messages that were replayed to them. */
  replayed: number;
  /** They were told to start over. */
  reset: number;
}

/** Why one message was refused. */
export interface Refusal {
  /** For programs: `unknown_channel`, `unknown_event`, `invalid`, `too_large`, `stale_attempt`, … */
  code: string;
  /** For people. */
  message: string;
}

/** A test that somebody outside runs. Fields that do not stand here are refused. */
export interface Register {
  /** The same `id` again, by the same user, is answered as the first time. */
  id?: string;
  /** The longest time between two reports, in ms; 30,000 unless told. */
  leaseMs?: number;
  /** What its runs have in common: they share durations and outcomes. */
  name?: string;
  /** Goes on with an attempt whose lease may have run out meanwhile. Its `testId` stands beside it. */
  resume?: Resume;
  /** When it began, in ms since the Unix epoch; now unless told. */
  startedAt?: number;
  /** The team that it belongs to. */
  teamId?: string;
  /** The name of the test, to choose it; one is made up otherwise. One that has ended begins anew. */
  testId?: TestId;
  /** What kind of test it is; `external` unless told. */
  testType?: string;
  /** How many test cases there will be. */
  total?: number;
  /** Where more can be seen; http or https. */
  url?: string;
}

/** An attempt that the caller holds from now on. */
export interface Registered {
  /** The attempt, from 1. */
  attempt: number;
  /** Names its job. */
  jobId: JobId;
  /** The right to speak for the attempt, a secret. Send it with every report and with the end. */
  lease: string;
  /** The longest time between two reports, in ms. */
  leaseMs: number;
  /** Where the test is in its life. */
  state: TestState;
  /** Names the test: its channel is `test-progress-{testId}`. */
  testId: TestId;
}

/** What a registered test does. */
export interface Reports {
  /** The attempt that speaks. */
  attempt: number;
  /** What happened, in order. None is a sign of life. */
  events: Happening[];
  /** Its lease. */
  lease: string;
}

/** How a test is run again. The whole body may be left out. */
export interface Rerun {
  /** Only the cases that failed. */
  failedOnly?: boolean;
  /** The name of the new test, to choose it; one is made up otherwise. */
  testId?: TestId;
}

/** `room:reset`: what follows does not continue what the receiver had. */
export interface Reset {
  /** The epoch of what follows. */
  epoch: Epoch;
  /** What follows starts after this offset. */
  offset: number;
  /** `trimmed`, `epoch_changed`, `ahead_of_top` or `gap`. */
  reason: string;
  /** The channel. */
  room: ChannelName;
  /** The state of the test at this position. */
  snapshot?: Snapshot;
}

/** An attempt that was registered before. */
export interface Resume {
  /** The attempt. */
  attempt: number;
  /** Its job. */
  jobId: JobId;
  /** Its lease. */
  lease: string;
}

/** What is to go on: what was paused as a whole if the body is left out. */
export interface ResumeQueue {
  /** The jobs of the test type `command` that run this suite. */
  suite?: string;
  /** The jobs of this test type. */
  testType?: string;
}

/** Until when a token has to be shut out. The whole body may be left out. */
export interface RevokeToken {
  /** When it expires, in ms since the Unix epoch; a year from now unless told. */
  expiresAt?: number;
}

/** What a change did. */
export interface Revoked {
  /** Whether it changed something; else it was so already. */
  changed: boolean;
}

/** Who is in a room. */
export interface RoomPresence {
  /** The channel whose room it is. */
  channel: ChannelName;
  /** Connections in it, those of nobody in particular included. */
  connections: number;
  /** The named users in it, by name, each with its connections there. */
  users: UserOnline[];
}

/** All schedules. */
export interface ScheduleList {
  /** By their names. */
  schedules: ScheduleState[];
}

/** A job that the clock submits. */
export interface ScheduleState {
  /** What the runner is told. */
  config: Record<string, unknown>;
  /** When, as a cron expression. */
  cron: string;
  /** Its name: its jobs have it, and their tests begin with it. */
  name: string;
  /** When it is due next, in ms since the Unix epoch; never again if absent. */
  next?: number;
  /** Higher ones run first. */
  priority: Priority;
  /** Which runner handles it. */
  testType: string;
  /** By which clock. */
  timezone: string;
}

/** Another place in the queue. */
export interface SetPriority {
  /** Higher ones run first. */
  priority: Priority;
}

/** A test that takes longer than nearly all of its runs before. */
export interface Slower {
  /** What nearly all of them took at most, in ms. */
  limitMs: number;
  /** What half of them took at most, in ms. */
  usualMs: number;
}

/** The current state of a test. */
export interface Snapshot {
  /** The newest attempt, from 1; 0 before the first. */
  attempt: number;
  /** Test cases by outcome. */
  counts: Counts;
  /** The test cases that run now. */
  current: string[];
  /** When it ended. */
  endedAt?: number;
  /** The epoch of `test-progress-{testId}` that `offset` counts in. */
  epoch: Epoch;
  /** Why the newest attempt failed. */
  error?: TestError;
  /** When it will probably end. */
  etaMs?: EtaMs;
  /** The first failures. */
  failures: Failure[];
  /** Once it failed: how it did in the runs before this one. */
  history?: TrackRecord;
  /** The job that runs it; none for a test that reports from outside. */
  jobId?: JobId;
  /** A line for people. */
  message?: string;
  /** Whatever the runner measures. */
  metrics: Record<string, unknown>;
  /** The state is the fold of the messages up to this offset. */
  offset: number;
  /** 0 to 100. */
  progress: number;
  /** When it was submitted, in ms since the Unix epoch. */
  queuedAt?: number;
  /** What the runner found, once it ended. */
  results?: unknown;
  /** It takes longer than nearly all of its runs before. */
  slower?: Slower;
  /** It is alive, and makes no progress. */
  stalled?: Stalled;
  /** When the newest attempt began. */
  startedAt?: number;
  /** Where it is in its life. */
  state: TestState;
  /** Which test. */
  testId: TestId;
  /** `stress`, `command`, … */
  testType: string;
}

/** A test that is alive and makes no progress. */
export interface Stalled {
  /** For how long, in ms. */
  sinceMs: number;
}

/** What the server has now. */
export type Stats = Work & {  /** Open connections. */  connections: number;  /** Inboxes. */  inbox: InboxStats;  /** Jobs, by state. */  jobs: Record<string, number>;  /** What each node has of this, where several share a Redis. */  nodes?: NodeStats[];  /** What of the queue is held back. */  paused: Pause[];  /** Rooms with somebody in them. */  rooms: number;  /** Tasks that are alive in the process that answers. */  tasks: number;  /** Users that are online. */  users: number;  /** Workers that take jobs. */  workers: number; };

/** What became of a notification. */
export type Status = 'unread' | 'read' | 'recalled';

/** A stretch of history.  If `oldest` is greater than the asked `offset` plus one, the messages between the two are gone: history keeps only so many, for so long. */
export interface Stretch {
  /** The epoch of the channel and of all offsets here. */
  epoch: Epoch;
  /** Oldest first, without a hole, never conflated. */
  messages: Message[];
  /** The `offset` to go on from, if there is more. */
  next?: number;
  /** The offset of the oldest message that can still be read; `top + 1` if there is none. */
  oldest: number;
  /** The offset of the channel's newest message; 0 before the first. */
  top: number;
}

/** A request to run a test. Fields that do not stand here are refused. */
export interface SubmitJob {
  /** What the runner is told; its shape depends on the test type. */
  config: Record<string, unknown>;
  /** A second submission with the same key returns the first job instead of adding one. `schedule:…` are those of scheduled jobs. */
  dedupeKey?: string;
  /** Not before so many ms have passed. Not together with `runAt`. */
  delayMs?: number;
  /** Attempts in all. */
  maxAttempts?: number;
  /** Higher ones run first; 2 (normal) unless told. */
  priority?: Priority;
  /** Not before this time, in ms since the Unix epoch; at once if it is past. Not together with `delayMs`. */
  runAt?: number;
  /** The team that the job belongs to. */
  teamId?: string;
  /** The name of the test, to choose it; one is made up otherwise. */
  testId?: TestId;
  /** Which runner handles it: `stress`, `command`, or a type that a worker registered. */
  testType: string;
  /** How long an attempt may take; the runner's own limit if absent. */
  timeoutMs?: number;
}

/** The answer to a report. */
export interface Taken {
  /** The attempt that goes on. */
  attempt: number;
  /** Somebody asked to cancel the test: stop it, and end it as `cancelled`. */
  cancel?: Wish;
  /** The next report has to come within this time, in ms. */
  leaseMs: number;
}

/** What the data of a `test:*` message may say. Fields that no rule needs pass through unread. */
export interface TestData {
  /** Which attempt speaks. */
  attempt?: number;
  /** Test cases that ended. */
  completed?: number;
  /** When the attempt ended. */
  completedAt?: number;
  /** Test cases by outcome. */
  counts?: Counts;
  /** Test cases that run now. */
  current?: string[];
  /** Why it failed. */
  error?: TestError;
  /** When it will probably end. */
  etaMs?: EtaMs;
  /** The first failures. */
  failures?: Failure[];
  /** How it did in the runs before this one. */
  history?: TrackRecord;
  /** Which job runs it. */
  jobId?: JobId;
  /** A line for people. */
  message?: string;
  /** Whatever the runner measures. */
  metrics?: Record<string, unknown>;
  /** 0 to 100. */
  progress?: number;
  /** What the runner found. */
  results?: unknown;
  /** It takes longer than nearly all of its runs before. */
  slower?: Slower;
  /** It is alive, and makes no progress. */
  stalled?: Stalled;
  /** When the attempt began. */
  startedAt?: number;
  /** Which test. */
  testId?: TestId;
  /** `stress`, `command`, … */
  testType?: string;
  /** Test cases in all. */
  total?: number;
  /** Whether another attempt follows this failure. */
  willRetry?: boolean;
}

/** Why an attempt failed. */
export interface TestError {
  /** `tests_failed`, `timeout`, `worker_lost`, `runner_error`, … */
  code: string;
  /** For people. */
  message: string;
}

/** Names a test: what people watch. The sender may choose it. */
export type TestId = string;

/** Where a test is in its life. */
export type TestState = 'scheduled' | 'queued' | 'running' | 'retrying' | 'completed' | 'failed' | 'cancelled';

/** A page of tests. */
export interface Tests {
  /** The `cursor` of the next page, if there is one. */
  next?: string;
  /** Newest first. */
  tests: Snapshot[];
}

/** How a test, or a case of it, did in the runs before this one. */
export interface TrackRecord {
  /** In how many of them it failed. */
  failed: number;
  /** It changed between passed and failed at least twice: a failure says little. */
  flaky: boolean;
  /** The runs that are looked at: the latest, at most 20. */
  runs: number;
}

/** Which page of the unread messages. The whole body may be left out. */
export interface UnreadPage {
  /** Where the page begins: `next` of the page before. */
  after?: string;
  /** How many at most; 100 unless told. */
  limit?: number;
}

/** Names a person or a service. */
export type UserId = string;

/** A user with connections. */
export interface UserOnline {
  /** How many connections. */
  connections: number;
  /** Who. */
  userId: UserId;
}

/** A page of the users that are online. */
export interface UsersOnline {
  /** The `cursor` of the next page, if there is one. */
  next?: string;
  /** How many users are online in all. */
  total: number;
  /** By name. */
  users: UserOnline[];
}

/** How a test ends. */
export type Verdict = 'passed' | 'failed' | 'cancelled';

/** A wish to cancel. */
export interface Wish {
  /** Who asked. */
  cancelledBy?: UserId;
  /** Why. */
  reason: string;
}

/** What was done since the process began: the numbers of `/metrics`. */
export interface Work {
  /** Messages that left a connection at once; absent before the first ones. */
  batch?: Batches;
  /** Both, by priority. */
  byPriority: Record<string, Passed>;
  /** Messages that receivers were spared, because a newer one stands for them. */
  conflated: number;
  /** Messages that were handed to sockets. */
  deliveries: number;
  /** From the acceptance of a live message to its hand-over; absent before the first one. */
  deliveryLatencyMs?: Latency;
  /** Messages that were appended. */
  publications: number;
  /** Joins with a position. */
  recoveries: Recoveries;
  /** Times that a receiver fell behind its bound and was read on from history. */
  slowConsumers: number;
}

/** Names a worker: a process that runs jobs. */
export type WorkerId = string;

/** What the server tells of a test; fields that no rule needs pass through. */
export type Test<Told extends keyof TestFields = never> = TestFields & Required<Pick<TestFields, 'testId' | 'attempt' | Told>>;

/** `TestData`, and what the server passes on unread. */
export interface TestFields extends TestData {
  /** How it ended: `passed`. */
  status?: string;
  durationMs?: number;
  /** The number of the first of `lines`, from 1; a jump shows lines that were left out. */
  firstLine?: number;
  lines?: string[];
  reason?: string;
  cancelledBy?: UserId;
  workerId?: WorkerId;
  url?: string;
}

/** What everybody should know. */
export interface Alert {
  level?: string;
  message?: string;
  [more: string]: unknown;
}

/** What the messages of each event say. */
export interface EventData {
  'test:started': Test<'testType' | 'startedAt'>;
  'test:progress': Test<'progress'>;
  'test:log': Test<'firstLine' | 'lines'>;
  'test:completed': Test<'completedAt' | 'durationMs'>;
  'test:failed': Test<'error'>;
  'test:cancelled': Test<'reason'>;
  'queue:job:added': JobData;
  'queue:job:started': JobData;
  'queue:job:progress': JobData;
  'queue:job:completed': JobData;
  'queue:job:failed': JobData;
  'queue:job:cancelled': JobData;
  'queue:job:retrying': JobData;
  'queue:job:updated': JobData;
  'queue:paused': PauseData;
  'queue:resumed': PauseData;
  'system:alert': Alert;
  'system:maintenance:start': Alert;
  'system:maintenance:end': Alert;
  'user:notification': MessageToUser;
  'user:notification:recalled': { messageId: MessageId };
  'user:notification:read': { messageIds: MessageId[]; readAt: number };
  'user:online': UserOnline;
  'user:offline': UserOnline;
}

/** The channels of the server, as `channels.toml` declares them. */
export interface Channels {
  'test-progress': { name: `test-progress-${string}`; snapshot: true; event: 'test:started' | 'test:progress' | 'test:log' | 'test:completed' | 'test:failed' | 'test:cancelled' | `custom:${string}` };
  'job-status': { name: `job-status-${string}`; snapshot: false; event: 'queue:job:added' | 'queue:job:started' | 'queue:job:progress' | 'queue:job:completed' | 'queue:job:failed' | 'queue:job:cancelled' | 'queue:job:retrying' | 'queue:job:updated' };
  'queue-updates': { name: 'queue-updates'; snapshot: false; event: 'queue:job:added' | 'queue:job:started' | 'queue:job:progress' | 'queue:job:completed' | 'queue:job:failed' | 'queue:job:cancelled' | 'queue:job:retrying' | 'queue:job:updated' | 'queue:paused' | 'queue:resumed' };
  'test-updates': { name: 'test-updates'; snapshot: false; event: 'test:started' | 'test:progress' | 'test:completed' | 'test:failed' | 'test:cancelled' };
  'test-history-updates': { name: 'test-history-updates'; snapshot: false; event: 'test:completed' | 'test:failed' | 'test:cancelled' };
  'stress-test': { name: `stress-test-${string}`; snapshot: false; event: 'test:progress' };
  'system-alerts': { name: 'system-alerts'; snapshot: false; event: 'system:alert' | 'system:maintenance:start' | 'system:maintenance:end' };
  'user-notifications': { name: `user-notifications-${string}`; snapshot: false; event: 'user:notification' | 'user:notification:recalled' | 'user:notification:read' };
  'user-presence': { name: 'user-presence'; snapshot: false; event: 'user:online' | 'user:offline' };
  'team-updates': { name: `team-updates-${string}`; snapshot: false; event: 'team:update' };
  'shared-tests': { name: `shared-tests-${string}`; snapshot: false; event: 'shared:test' };
}
