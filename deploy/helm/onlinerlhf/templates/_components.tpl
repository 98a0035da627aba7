{{/* Components that are rooms: they have settings, metrics and a Redis connection. */}}
{{- define "onlinerlhf.rooms" -}}
{{- $rooms := list "gateway" "rollout" "reward" "learner" }}
{{- if .Values.scaler.enabled }}
{{- $rooms = append $rooms "scaler" }}
{{- end }}
{{- toJson $rooms }}
{{- end }}

{{/* The components that this release runs, as a JSON list. */}}
{{- define "onlinerlhf.components" -}}
{{- $components := include "onlinerlhf.rooms" . | fromJsonArray }}
{{- if .Values.redis.enabled }}
{{- $components = append $components "redis" }}
{{- end }}
{{- if eq .Values.models.source "bootstrap" }}
{{- $components = append $components "models" }}
{{- end }}
{{- toJson $components }}
{{- end }}
