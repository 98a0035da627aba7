{{/*
Who calls whom, and on which port, as a JSON list: the arrows of the design's picture between pods of this release. Each
is two NetworkPolicies, one at either end.
*/}}
{{- define "onlinerlhf.edges" -}}
{{- $edges := list
  (dict "from" "gateway" "to" "rollout" "port" 50051)
  (dict "from" "rollout" "to" "learner" "port" 50051) }}
{{- if .Values.scaler.enabled }}
{{- $edges = append $edges (dict "from" "scaler" "to" "rollout" "port" 50051) }}
{{- $edges = append $edges (dict "from" "scaler" "to" "learner" "port" 50051) }}
{{- end }}
{{- if .Values.redis.enabled }}
{{- range $room := include "onlinerlhf.rooms" . | fromJsonArray }}
{{- $edges = append $edges (dict "from" $room "to" "redis" "port" 6379) }}
{{- end }}
{{- end }}
{{- toJson $edges }}
{{- end }}

{{/* Selects the pods of all rooms, in a NetworkPolicy. */}}
{{- define "onlinerlhf.roomsSelector" -}}
matchLabels:
  {{- include "onlinerlhf.selector" . | nindent 2 }}
matchExpressions:
  - key: app.kubernetes.io/component
    operator: In
    values: {{ include "onlinerlhf.rooms" . }}
{{- end }}
