{{/* The configuration file: TOML sections, one a room. */}}

{{/* A TOML value. JSON's scalars and lists of them are TOML's too; `int64` keeps 1e+06 out. */}}
{{- define "onlinerlhf.tomlValue" -}}
{{- if kindIs "map" . }}
{{- $parts := list }}
{{- range $key, $value := . }}
{{- $parts = append $parts (printf "%s = %s" (toJson $key) (include "onlinerlhf.tomlValue" $value)) }}
{{- end -}}
{ {{ join ", " $parts }} }
{{- else if kindIs "slice" . }}
{{- $parts := list }}
{{- range . }}
{{- $parts = append $parts (include "onlinerlhf.tomlValue" .) }}
{{- end -}}
[{{ join ", " $parts }}]
{{- else if and (kindIs "float64" .) (eq . (floor .)) (lt . 9e15) (gt . -9e15) }}
{{- int64 . }}
{{- else }}
{{- toJson . }}
{{- end }}
{{- end }}

{{- define "onlinerlhf.tomlSection" -}}
[{{ .name }}]
{{- range $key, $value := .values }}
{{- if not (kindIs "invalid" $value) }}
{{ $key }} = {{ include "onlinerlhf.tomlValue" $value }}
{{- end }}
{{- end }}
{{- end }}

{{/* Settings of every room: where it listens, and TLS. Arguments: root, room, values. */}}
{{- define "onlinerlhf.serviceSettings" -}}
{{- $host := .root.Values.listenHost }}
{{- $settings := dict "listen" (printf "%s:50051" $host) "health_listen" (printf "%s:50052" $host) "metrics_port" 9090 }}
{{- $_ := set $settings "drain_seconds" .values.drainSeconds }}
{{- with .values.maxConnectionAgeSeconds }}
{{- $_ := set $settings "max_connection_age_seconds" . }}
{{- end }}
{{- if ne .root.Values.tls.mode "off" }}
{{- $dir := "/etc/onlinerlhf/tls" }}
{{- $_ := set $settings "tls_cert" (printf "%s/tls.crt" $dir) }}
{{- $_ := set $settings "tls_key" (printf "%s/tls.key" $dir) }}
{{- $_ := set $settings "tls_ca" (printf "%s/ca.crt" $dir) }}
{{- $_ := set $settings "require_client_certificate" (ne .room "gateway") }}
{{- end }}
{{- toJson $settings }}
{{- end }}

{{/*
How far sampling may run ahead of learning, such that hardly a sample gets too stale: as `onlinerlhf up` derives it. Both
the workers and the scaler go by it.
*/}}
{{- define "onlinerlhf.maxSamplesAhead" -}}
{{- $rollout := .Values.rollout.settings }}
{{- $learner := .Values.learner.settings }}
{{- if hasKey $rollout "max_samples_ahead" }}
{{- $rollout.max_samples_ahead | int64 }}
{{- else }}
{{- $batch := dig "batch_size" 512 $learner | int64 }}
{{- $staleness := dig "max_staleness" 4 $learner | int64 }}
{{- $every := dig "checkpoint_every" 1 $learner | int64 }}
{{- $responses := max 1 (dig "num_responses" 1 $rollout | int64) }}
{{- $batches := add (max 1 (sub $staleness 1)) (max 0 (sub $every 1)) }}
{{- div (add (mul $batches $batch) (sub $responses 1)) $responses }}
{{- end }}
{{- end }}

{{/* What the chart itself sets in a room's section, as JSON. Arguments: root, room. */}}
{{- define "onlinerlhf.ownSettings" -}}
{{- $root := .root }}
{{- $values := get $root.Values .room }}
{{- $settings := include "onlinerlhf.serviceSettings" (dict "root" $root "room" .room "values" $values) | fromJson }}
{{- $policy := printf "/models/%s" $root.Values.models.policyDir }}
{{- $reward := printf "/models/%s" $root.Values.models.rewardDir }}
{{- $learner := include "onlinerlhf.target" (dict "root" $root "service" "learner") }}
{{- $ahead := include "onlinerlhf.maxSamplesAhead" $root | int64 }}
{{- $own := dict }}
{{- if eq .room "gateway" }}
{{- $http := ternary (printf "%s:8000" $root.Values.listenHost) "none" $values.http.enabled }}
{{- $rollout := include "onlinerlhf.target" (dict "root" $root "service" "rollout") }}
{{- $own = dict "model_dir" $policy "rollout_target" $rollout "http_listen" $http }}
{{- else if eq .room "rollout" }}
{{- $own = dict "model_dir" $policy "learner_target" $learner "staging_dir" "/var/lib/onlinerlhf/staging" "max_samples_ahead" $ahead }}
{{- else if eq .room "reward" }}
{{- $own = dict "model_dir" $reward }}
{{- else if eq .room "learner" }}
{{- $own = dict "policy_dir" $policy "reward_dir" $reward "output_dir" "/var/lib/onlinerlhf/learner" }}
{{- else if eq .room "scaler" }}
{{- $lease := printf "%s-scaler" (include "onlinerlhf.fullname" $root) }}
{{- $own = dict "learner_target" $learner "rollout_port" 50051 "max_samples_ahead" $ahead "lease_name" $lease }}
{{- if ne $root.Values.tls.mode "off" }}
{{- /* Pods are called by address, which no certificate names. */}}
{{- $_ := set $own "rollout_server_name" (include "onlinerlhf.host" (dict "root" $root "service" "rollout")) }}
{{- end }}
{{- end }}
{{- toJson (merge $own $settings) }}
{{- end }}

{{/* A room's section. Arguments: root, room. */}}
{{- define "onlinerlhf.section" -}}
{{- $own := include "onlinerlhf.ownSettings" . | fromJson }}
{{- $given := (get .root.Values .room).settings }}
{{- include "onlinerlhf.tomlSection" (dict "name" .room "values" (merge $own $given)) }}
{{- end }}

{{- define "onlinerlhf.runSection" -}}
{{- include "onlinerlhf.tomlSection" (dict "name" "run" "values" (dict "id" .Values.run.id "log_level" .Values.run.logLevel)) }}
{{- end }}

{{/*
Of what a room reads of the file: [run] and its own section. Another room's settings then restart nobody but that room.
Arguments: root, room.
*/}}
{{- define "onlinerlhf.configChecksum" -}}
{{ printf "%s\n%s" (include "onlinerlhf.runSection" .root) (include "onlinerlhf.section" .) | sha256sum }}
{{- end }}
