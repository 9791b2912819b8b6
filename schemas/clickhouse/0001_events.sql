-- What happened, one row an event. The columns are the event's kept fields
-- under their names with underscores; services/store/agreement_test.go holds
-- this list, the Go type, the Arrow schema and the JSON schema together.
--
-- Partitioned by the day of receipt: a token is then always of one partition
-- set, retention drops whole parts, and an import over years stays one
-- partition. Ordered for the questions of tenants and rules.
CREATE TABLE IF NOT EXISTS events
(
    time                 DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    received             DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    kind                 LowCardinality(String),
    action               LowCardinality(String),
    outcome              LowCardinality(String),
    message              String CODEC(ZSTD(1)),
    event_source         LowCardinality(String),
    event_id             String CODEC(ZSTD(1)),
    event_marks          LowCardinality(String),
    collector_id         LowCardinality(String),
    collector_epoch      Int64 CODEC(T64, ZSTD(1)),
    collector_seq        Int64 CODEC(T64, ZSTD(1)),
    tenant_id            LowCardinality(String),
    tenant_tier          LowCardinality(String),
    user_hash            LowCardinality(String),
    user_type            LowCardinality(String),
    session_id           String CODEC(ZSTD(1)),
    source_ip            LowCardinality(String),
    source_country       LowCardinality(String),
    datacenter           LowCardinality(String),
    host_name            LowCardinality(String),
    service_name         LowCardinality(String),
    service_version      LowCardinality(String),
    resource_type        LowCardinality(String),
    resource_name        LowCardinality(String),
    resource_title       LowCardinality(String),
    ticket               String CODEC(ZSTD(1)),
    process_name         LowCardinality(String),
    process_pid          Nullable(Int64) CODEC(T64, ZSTD(1)),
    process_parent       LowCardinality(String),
    process_executable   LowCardinality(String),
    process_command_line String CODEC(ZSTD(1)),
    duration             Nullable(Float64) CODEC(ZSTD(1)),
    server_duration      Nullable(Float64) CODEC(ZSTD(1)),
    bytes                Nullable(Int64) CODEC(T64, ZSTD(1)),
    value                Nullable(Float64) CODEC(ZSTD(1)),
    labels               Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    -- The id that people see: the producer's own, else the identity.
    id                   String ALIAS if(event_id != '', event_id, concat(collector_id, '-', toString(collector_epoch), '-', toString(collector_seq))),
    INDEX by_time time TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(received)
ORDER BY (tenant_id, action, time)
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;

-- One row a message of the stream EVENTS: who sent it, how many rows of which
-- source it held, what was refused before it. Ledger, gaps and clock skew are
-- questions to this table. Writing a row twice leaves one.
CREATE TABLE IF NOT EXISTS batches
(
    seq             UInt64 CODEC(Delta, ZSTD(1)),
    bus_time        DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    collector_id    LowCardinality(String),
    collector_epoch Int64 CODEC(T64, ZSTD(1)),
    first           Int64 CODEC(Delta, ZSTD(1)),
    rows            Int64 CODEC(T64, ZSTD(1)),
    bytes           Int64 CODEC(T64, ZSTD(1)),
    mark            DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    schema          LowCardinality(String),
    import          LowCardinality(String),
    sources         Map(LowCardinality(String), Int64),
    refused         Map(LowCardinality(String), Int64),
    excluded        Bool
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(bus_time)
ORDER BY (collector_id, collector_epoch, first, seq);
