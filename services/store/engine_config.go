package store

import (
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// engineConfig is the embedded engine's server configuration: memory first (it
// took 1.7 GB without), no log files, no network. Everything that is not set is
// ClickHouse's default.
const engineConfig = `<clickhouse>
  <logger><level>none</level><console>0</console></logger>
  <timezone>Etc/UTC</timezone>
  <max_server_memory_usage>%[1]d</max_server_memory_usage>
  <mark_cache_size>33554432</mark_cache_size>
  <index_mark_cache_size>16777216</index_mark_cache_size>
  <uncompressed_cache_size>0</uncompressed_cache_size>
  <index_uncompressed_cache_size>0</index_uncompressed_cache_size>
  <mmap_cache_size>0</mmap_cache_size>
  <query_cache><max_size_in_bytes>0</max_size_in_bytes></query_cache>
  <background_pool_size>2</background_pool_size>
  <background_merges_mutations_concurrency_ratio>1</background_merges_mutations_concurrency_ratio>
  <background_schedule_pool_size>4</background_schedule_pool_size>
  <background_common_pool_size>2</background_common_pool_size>
  <background_fetches_pool_size>1</background_fetches_pool_size>
  <background_move_pool_size>1</background_move_pool_size>
  <background_buffer_flush_schedule_pool_size>1</background_buffer_flush_schedule_pool_size>
  <background_message_broker_schedule_pool_size>1</background_message_broker_schedule_pool_size>
  <background_distributed_schedule_pool_size>1</background_distributed_schedule_pool_size>
  <dictionaries_lazy_load>true</dictionaries_lazy_load>
  <merge_tree>
    <number_of_free_entries_in_pool_to_lower_max_size_of_merge>1</number_of_free_entries_in_pool_to_lower_max_size_of_merge>
    <number_of_free_entries_in_pool_to_execute_mutation>1</number_of_free_entries_in_pool_to_execute_mutation>
    <number_of_free_entries_in_pool_to_execute_optimize_entire_partition>1</number_of_free_entries_in_pool_to_execute_optimize_entire_partition>
  </merge_tree>
  <users_config>%[2]s</users_config>
</clickhouse>
`

// engineUsers is what every connection may do: work with tables of the
// MergeTree family and views, and kill statements. No FILE, URL, REMOTE or any
// other source, no users, no functions, no backups to elsewhere.
const engineUsers = `<clickhouse>
  <profiles>
    <default>
      <max_memory_usage>%[1]d</max_memory_usage>
      <max_bytes_before_external_group_by>%[2]d</max_bytes_before_external_group_by>
      <max_bytes_before_external_sort>%[2]d</max_bytes_before_external_sort>
    </default>
  </profiles>
  <users>
    <default>
      <password></password>
      <networks><ip>::1</ip><ip>127.0.0.1</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
      <grants>
        <query>GRANT SHOW, SELECT, INSERT, ALTER, CREATE DATABASE, CREATE TABLE, CREATE VIEW, DROP DATABASE, DROP TABLE, DROP VIEW, TRUNCATE, OPTIMIZE, KILL QUERY, SYSTEM MERGES, SYSTEM FLUSH ON *.*</query>
        <query>GRANT TABLE ENGINE ON MergeTree</query>
        <query>GRANT TABLE ENGINE ON ReplacingMergeTree</query>
        <query>GRANT TABLE ENGINE ON AggregatingMergeTree</query>
        <query>GRANT TABLE ENGINE ON SummingMergeTree</query>
      </grants>
    </default>
  </users>
  <quotas><default></default></quotas>
</clickhouse>
`

// writeEngineConfig writes the configuration beside the data and returns its
// path. It is written anew at every start: it is ours, not the operator's.
func writeEngineConfig(dir string, c Config) (string, error) {
	users := filepath.Join(dir, "coc-users.xml")
	statement := c.MemoryBytes / 100 * statementMemoryShare
	if err := replaceFile(users, fmt.Sprintf(engineUsers, statement, statement/2)); err != nil {
		return "", err
	}
	var escaped strings.Builder
	if err := xml.EscapeText(&escaped, []byte(users)); err != nil {
		return "", err
	}
	config := filepath.Join(dir, "coc-engine.xml")
	return config, replaceFile(config, fmt.Sprintf(engineConfig, c.MemoryBytes, escaped.String()))
}

// replaceFile writes a file whole or not at all.
func replaceFile(name, content string) error {
	tmp := name + ".new"
	if err := os.WriteFile(tmp, []byte(content), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, name)
}
