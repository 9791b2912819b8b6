-- A day's release as it was made, whole, in one row: it is made once, by one
-- insert under the token of its day. release_days and release_usage are copied
-- from document, so a crash between the inserts is mended by copying again.
-- Not for product teams: events counts what was suppressed as well.
CREATE TABLE IF NOT EXISTS release_made
(
    day       Date,
    zone      LowCardinality(String),
    released  DateTime64(3, 'UTC'),
    events    Int64,
    no_tenant Int64,
    simulated Int64,
    document  String CODEC(ZSTD(3))
)
ENGINE = MergeTree
ORDER BY day
SETTINGS non_replicated_deduplication_window = 10000;

-- What was released when, and how many rows were suppressed for which reason.
CREATE TABLE IF NOT EXISTS release_days
(
    day         Date,
    zone        LowCardinality(String),
    released    DateTime64(3, 'UTC'),
    rows        Int64,
    few_tenants Int64,
    dominated   Int64,
    simulated   Bool
)
ENGINE = ReplacingMergeTree
ORDER BY day;

-- How many events of a released day came after its release.
CREATE TABLE IF NOT EXISTS release_late
(
    day     Date,
    late    Int64,
    counted DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(counted)
ORDER BY day;

-- The anonymous statistics: '*' in resource_type and resource_name is all
-- resources, '*' in tier all tiers. Response times are counts of the uses that
-- took at most so many milliseconds and more than the column before.
CREATE TABLE IF NOT EXISTS release_usage
(
    day           Date,
    service       LowCardinality(String),
    version       LowCardinality(String),
    resource_type LowCardinality(String),
    resource_name LowCardinality(String),
    tier          LowCardinality(String),
    tenants       Int64,
    users         Int64,
    uses          Int64,
    failures      Int64,
    timed         Int64,
    ms_100        Int64,
    ms_200        Int64,
    ms_500        Int64,
    ms_1000       Int64,
    ms_2000       Int64,
    ms_5000       Int64,
    ms_10000      Int64,
    ms_more       Int64
)
ENGINE = ReplacingMergeTree
ORDER BY (day, service, version, resource_type, resource_name, tier);

-- Response times of a tenant's windows, per day and client. Not anonymous: for
-- talks with this very customer. A day is built again while events of it come.
CREATE TABLE IF NOT EXISTS tenant_response_times
(
    tenant_id   LowCardinality(String),
    day         Date,
    window_name LowCardinality(String),
    client      LowCardinality(String),
    openings    Int64,
    timed       Int64,
    above_2s    Int64,
    ms_100      Int64,
    ms_200      Int64,
    ms_500      Int64,
    ms_1000     Int64,
    ms_2000     Int64,
    ms_5000     Int64,
    ms_10000    Int64,
    ms_more     Int64,
    built       DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(built)
ORDER BY (tenant_id, day, window_name, client);
