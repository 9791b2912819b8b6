-- What rules found: the contract of finding.schema.json, one row a revision;
-- the highest revision of an id counts.
CREATE TABLE IF NOT EXISTS findings
(
    id          String CODEC(ZSTD(1)),
    rule        LowCardinality(String),
    logic       LowCardinality(String),
    title       LowCardinality(String),
    class       LowCardinality(String),
    severity    LowCardinality(String),
    status      LowCardinality(String),
    lane        UInt8,
    cell_from   DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    cell_to     DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    key         Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    tenant      LowCardinality(String),
    terms_expr  Array(LowCardinality(String)),
    terms_value Array(Float64),
    window_from DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    window_to   DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    how         String CODEC(ZSTD(1)),
    fired       DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    fired_by    String CODEC(ZSTD(1)),
    first_seen  DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    last_seen   DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    count       Int64 CODEC(T64, ZSTD(1)),
    revision    UInt64 CODEC(T64, ZSTD(1)),
    evidence    Array(String) CODEC(ZSTD(1)),
    continues   String CODEC(ZSTD(1)),
    import      LowCardinality(String),
    withdrawn   Bool,
    approximate Bool,
    -- The number of the message in the stream FINDINGS that brought it.
    seq         UInt64 CODEC(T64, ZSTD(1))
)
ENGINE = ReplacingMergeTree(revision)
ORDER BY id;
