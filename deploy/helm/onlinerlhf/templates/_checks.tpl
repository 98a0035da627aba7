{{/* Combinations that would not work, refused in one sentence each. The schema has checked every single value. */}}
{{- define "onlinerlhf.checks" -}}
{{- $v := .Values }}
{{- if and $v.keda.enabled $v.scaler.enabled }}
{{- fail "keda.enabled and scaler.enabled exclude each other: two controllers would fight over the rollout pools' replicas. Set scaler.enabled=false to scale by KEDA" }}
{{- end }}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" (include "onlinerlhf.fullname" .)) }}
{{- fail (printf "the release's name gives Services names like %s-redis: those begin with a letter and have no dots. Set fullnameOverride" (include "onlinerlhf.fullname" .)) }}
{{- end }}
{{- include "onlinerlhf.checkPools" . }}
{{- include "onlinerlhf.checkRedis" . }}
{{- include "onlinerlhf.checkTls" . }}
{{- include "onlinerlhf.checkSettings" . }}
{{- with $v.gateway.autoscaling }}
{{- if and .enabled (lt (int64 .maxReplicas) (int64 .minReplicas)) }}
{{- fail (printf "gateway.autoscaling.maxReplicas (%d) is below minReplicas (%d)" (int64 .maxReplicas) (int64 .minReplicas)) }}
{{- end }}
{{- end }}
{{- if and (eq $v.models.source "claim") (not $v.models.claim.existingClaim) }}
{{- fail "models.source=claim needs models.claim.existingClaim: the name of a claim that holds the models" }}
{{- end }}
{{- if and (eq $v.models.source "bootstrap") $v.models.claim.existingClaim }}
{{- fail "models.claim.existingClaim goes with models.source=claim; models.source=bootstrap makes a claim of its own" }}
{{- end }}
{{- if not $v.rollout.pools }}
{{- fail "rollout.pools is empty: nobody would answer users" }}
{{- end }}
{{- end }}

{{- define "onlinerlhf.checkPools" -}}
{{- $v := .Values }}
{{- $autoscaled := list }}
{{- range $name, $pool := include "onlinerlhf.pools" . | fromJson }}
{{- $at := printf "rollout.pools.%s" $name }}
{{- with $pool.autoscaling }}
{{- if .enabled }}
{{- $autoscaled = append $autoscaled $name }}
{{- end }}
{{- if and .enabled (not (or $v.scaler.enabled $v.keda.enabled)) }}
{{- fail (printf "%s.autoscaling.enabled, but neither scaler.enabled nor keda.enabled: nothing would scale it. Set %s.autoscaling.enabled=false and %s.replicas" $at $at $at) }}
{{- end }}
{{- if and .enabled (lt (int64 .maxReplicas) (int64 .minReplicas)) }}
{{- fail (printf "%s.autoscaling.maxReplicas (%d) is below minReplicas (%d)" $at (int64 .maxReplicas) (int64 .minReplicas)) }}
{{- end }}
{{- if and .enabled $v.keda.enabled (lt (int64 .minReplicas) 1) }}
{{- fail (printf "%s.autoscaling.minReplicas is 0: by the length of a stream KEDA does not start from 0 again. Set 1 or more, or use the scaler" $at) }}
{{- end }}
{{- if and .enabled (not (kindIs "invalid" $pool.replicas)) }}
{{- fail (printf "%s.replicas goes with autoscaling.enabled=false: the autoscaler sets the replicas. To fix them for a while: kubectl scale rolloutpool/%s --replicas=N" $at $name) }}
{{- end }}
{{- if and (not .enabled) (kindIs "invalid" $pool.replicas) }}
{{- fail (printf "%s.replicas is required where autoscaling.enabled=false" $at) }}
{{- end }}
{{- end }}
{{- if hasKey $pool.settings "max_samples_ahead" }}
{{- fail (printf "%s.settings.max_samples_ahead is one number for the whole run: set rollout.settings.max_samples_ahead" $at) }}
{{- end }}
{{- $own := include "onlinerlhf.ownSettings" (dict "root" $ "room" "rollout") | fromJson }}
{{- include "onlinerlhf.checkOwned" (dict "at" $at "settings" $pool.settings "own" $own) }}
{{- include "onlinerlhf.checkEnv" (dict "at" $at "env" $pool.env) }}
{{- end }}
{{- if and $v.keda.enabled (gt (len $autoscaled) 1) }}
{{- fail (printf "keda.enabled scales one rollout pool, not %s: every pool reads the same stream, and KEDA would give each the replicas for all of it. Give the others autoscaling.enabled=false and replicas, or use the scaler" (join ", " ($autoscaled | sortAlpha))) }}
{{- end }}
{{- end }}

{{- define "onlinerlhf.checkRedis" -}}
{{- $redis := .Values.redis }}
{{- if and $redis.enabled $redis.external.enabled }}
{{- fail "redis.enabled and redis.external.enabled exclude each other: choose our Redis or your own" }}
{{- end }}
{{- if not (or $redis.enabled $redis.external.enabled) }}
{{- fail "redis.enabled=false needs redis.external.enabled=true: nothing works without Redis" }}
{{- end }}
{{- if $redis.external.enabled }}
{{- if not $redis.auth.existingSecret }}
{{- fail "redis.external.enabled needs redis.auth.existingSecret: the name of a Secret with the Redis's `url`" }}
{{- end }}
{{- if and .Values.networkPolicy.enabled (not $redis.external.egress) }}
{{- fail "redis.external.enabled needs redis.external.egress, a list of {cidr, port}: the network policies let nothing else out" }}
{{- end }}
{{- if and .Values.keda.enabled (not .Values.keda.address) }}
{{- fail "keda.enabled with an external Redis needs keda.address, as host:port" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "onlinerlhf.checkTls" -}}
{{- $tls := .Values.tls }}
{{- if eq $tls.mode "secret" }}
{{- range $room := include "onlinerlhf.rooms" . | fromJsonArray }}
{{- if not (include "onlinerlhf.tlsSecret" (dict "root" $ "room" $room)) }}
{{- fail (printf "tls.mode=secret needs tls.secret.name, or tls.secret.names.%s: a Secret with tls.crt, tls.key and ca.crt" $room) }}
{{- end }}
{{- end }}
{{- else if or $tls.secret.name $tls.secret.names }}
{{- fail (printf "tls.secret is set, but tls.mode is %s: set tls.mode=secret" $tls.mode) }}
{{- end }}
{{- end }}

{{- define "onlinerlhf.checkSettings" -}}
{{- range $room := include "onlinerlhf.rooms" . | fromJsonArray }}
{{- $own := include "onlinerlhf.ownSettings" (dict "root" $ "room" $room) | fromJson }}
{{- $given := (get $.Values $room).settings }}
{{- include "onlinerlhf.checkOwned" (dict "at" $room "settings" (omit $given "max_samples_ahead") "own" $own) }}
{{- include "onlinerlhf.checkEnv" (dict "at" $room "env" (get $.Values $room).env) }}
{{- end }}
{{- if and .Values.scaler.enabled (hasKey .Values.scaler.settings "max_samples_ahead") }}
{{- fail "scaler.settings.max_samples_ahead is the rollout workers' own: set rollout.settings.max_samples_ahead" }}
{{- end }}
{{- end }}

{{/* Arguments: at, settings, own. */}}
{{- define "onlinerlhf.checkOwned" -}}
{{- $owned := concat (keys .own) (list "worker_id" "tls_cert" "tls_key" "tls_ca" "require_client_certificate" "hash_key" "namespace" "kubeconfig") }}
{{- range $key := keys .settings | sortAlpha }}
{{- if has $key $owned }}
{{- fail (printf "%s.settings.%s is set by the chart itself; see the values beside settings" $.at $key) }}
{{- end }}
{{- end }}
{{- end }}

{{/* A setting given by environment would pass by all checks. Arguments: at, env. */}}
{{- define "onlinerlhf.checkEnv" -}}
{{- range .env }}
{{- if hasPrefix "ONLINERLHF_" (upper .name) }}
{{- fail (printf "%s.env: %s is a setting; it goes under %s.settings" $.at .name $.at) }}
{{- end }}
{{- end }}
{{- end }}
