{{/* What things are called. */}}

{{- define "onlinerlhf.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* Short enough for "-rollout-<pool>" and a pod's suffix behind it. */}}
{{- define "onlinerlhf.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 30 | trimSuffix "-" }}
{{- else }}
{{- $name := include "onlinerlhf.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 30 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 30 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/* Labels by which this release is selected; they never change. */}}
{{- define "onlinerlhf.selector" -}}
app.kubernetes.io/name: onlinerlhf
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "onlinerlhf.labels" -}}
{{ include "onlinerlhf.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Metadata of an object. Arguments: root, suffix (behind the fullname), component. */}}
{{- define "onlinerlhf.metadata" -}}
name: {{ include "onlinerlhf.fullname" .root }}{{ with .suffix }}-{{ . }}{{ end }}
namespace: {{ .root.Release.Namespace | quote }}
labels:
  {{- include "onlinerlhf.labels" .root | nindent 2 }}
  {{- with .component }}
  app.kubernetes.io/component: {{ . }}
  {{- end }}
{{- end }}

{{/* Selects a workload's pods. Arguments: root, component, pool (of rollout pods). */}}
{{- define "onlinerlhf.podSelector" -}}
{{ include "onlinerlhf.selector" .root }}
app.kubernetes.io/component: {{ .component }}
{{- with .pool }}
onlinerlhf.dev/pool: {{ . | quote }}
{{- end }}
{{- end }}

{{/* Reference of a room's image. Arguments: root, room, image (that replaces it). */}}
{{- define "onlinerlhf.image" -}}
{{- $image := .root.Values.image }}
{{- if .image }}
{{- .image }}
{{- else }}
{{- with $image.registry }}{{ trimSuffix "/" . }}/{{ end }}onlinerlhf-{{ .room }}:{{ $image.tag | default .root.Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* A Service's full DNS name. Arguments: root, service (suffix of its name). */}}
{{- define "onlinerlhf.host" -}}
{{ include "onlinerlhf.fullname" .root }}-{{ .service }}.{{ .root.Release.Namespace }}.svc.{{ .root.Values.clusterDomain }}
{{- end }}

{{/* gRPC target of a headless Service: the resolver sees every pod. */}}
{{- define "onlinerlhf.target" -}}
dns:///{{ include "onlinerlhf.host" . }}:50051
{{- end }}

{{- define "onlinerlhf.redisSecret" -}}
{{- .Values.redis.auth.existingSecret | default (printf "%s-redis-auth" (include "onlinerlhf.fullname" .)) }}
{{- end }}

{{/* Name of a room's TLS Secret. Arguments: root, room. */}}
{{- define "onlinerlhf.tlsSecret" -}}
{{- $tls := .root.Values.tls }}
{{- if eq $tls.mode "certManager" -}}
{{ include "onlinerlhf.fullname" .root }}-{{ .room }}-tls
{{- else -}}
{{ get $tls.secret.names .room | default $tls.secret.name }}
{{- end }}
{{- end }}

{{/* A room's terminationGracePeriodSeconds: no setting of its own, so that it always exceeds preStop + drain. */}}
{{- define "onlinerlhf.graceSeconds" -}}
{{ add .preStopSeconds .drainSeconds 20 }}
{{- end }}
