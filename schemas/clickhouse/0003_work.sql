-- The only place that keeps the name of a person, sealed; key_id says under
-- which key.
CREATE TABLE IF NOT EXISTS identities
(
    tenant_id  LowCardinality(String),
    user_hash  String CODEC(ZSTD(1)),
    sealed     String CODEC(NONE),
    key_id     LowCardinality(String),
    first_seen DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    last_seen  DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    revision   UInt64 CODEC(T64, ZSTD(1))
)
ENGINE = ReplacingMergeTree(revision)
ORDER BY (tenant_id, user_hash);

-- Every change of a small mutable thing (case, exception, maintenance …), as
-- it stands in the stream WORK: the state is the fold, this is the record.
CREATE TABLE IF NOT EXISTS work
(
    kind     LowCardinality(String),
    id       String CODEC(ZSTD(1)),
    seq      UInt64 CODEC(Delta, ZSTD(1)),
    time     DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    actor    LowCardinality(String),
    role     LowCardinality(String),
    reason   String CODEC(ZSTD(1)),
    data     String CODEC(ZSTD(1)),
    hash     String CODEC(ZSTD(1)),
    previous String CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree
ORDER BY (kind, id, seq);
