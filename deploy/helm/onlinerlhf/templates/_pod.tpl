{{/* What all pods have in common. */}}

{{/* Pod Security `restricted`, the pod's half. */}}
{{- define "onlinerlhf.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* The container's half, and a root file system that nothing writes to. */}}
{{- define "onlinerlhf.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Rooms whose pods mount the models, besides the Job that makes them. */}}
{{- define "onlinerlhf.modelsUsers" -}}
{{- toJson (list "gateway" "learner" "models" "reward" "rollout") }}
{{- end }}

{{/*
A pod's affinity as JSON: the user's, and, where one node at a time may have the models' volume, that all who mount it are on
that node. The scheduler does not see to that by itself: pods on other nodes would wait for the volume for ever. The first pod is
let in by its own labels. Arguments: root, component, values.
*/}}
{{- define "onlinerlhf.affinity" -}}
{{- $affinity := deepCopy (.values.affinity | default dict) }}
{{- $models := .root.Values.models }}
{{- $users := include "onlinerlhf.modelsUsers" . | fromJsonArray }}
{{- $isShared := or (has "ReadWriteMany" $models.claim.accessModes) (has "ReadOnlyMany" $models.claim.accessModes) }}
{{- if and (eq $models.source "bootstrap") (not $isShared) (has .component $users) }}
{{- $labels := include "onlinerlhf.selector" .root | fromYaml }}
{{- $component := dict "key" "app.kubernetes.io/component" "operator" "In" "values" $users }}
{{- $term := dict "topologyKey" "kubernetes.io/hostname" "labelSelector" (dict "matchLabels" $labels "matchExpressions" (list $component)) }}
{{- $pods := get $affinity "podAffinity" | default dict }}
{{- $key := "requiredDuringSchedulingIgnoredDuringExecution" }}
{{- $_ := set $pods $key (append (get $pods $key | default list) $term) }}
{{- $_ := set $affinity "podAffinity" $pods }}
{{- end }}
{{- toJson $affinity }}
{{- end }}

{{/* The beginning of a pod's spec. Arguments: root, component, pool, values (of the room or pool), automount. */}}
{{- define "onlinerlhf.podHead" -}}
serviceAccountName: {{ include "onlinerlhf.fullname" .root }}-{{ .component }}
automountServiceAccountToken: {{ .automount | default false }}
# Every Service's address as an environment variable would be read as nobody's settings, and slows large namespaces.
enableServiceLinks: false
securityContext:
  {{- include "onlinerlhf.podSecurity" . | nindent 2 }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "onlinerlhf.affinity" . | fromJson }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    # One node must do where there is only one.
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "onlinerlhf.podSelector" $ | nindent 8 }}
  {{- end }}
# Names of Services are written out in full: looked up as they are, before any search domain.
dnsConfig:
  options:
    - name: ndots
      value: "2"
{{- end }}

{{/* Labels and annotations of a room's pods; the chart's version is not among them: it would restart all. Arguments: as above, room. */}}
{{- define "onlinerlhf.podMetadata" -}}
labels:
  {{- include "onlinerlhf.podSelector" . | nindent 2 }}
annotations:
  checksum/config: {{ include "onlinerlhf.configChecksum" . }}
  # Names the container that `kubectl logs` and `kubectl exec` mean.
  kubectl.kubernetes.io/default-container: {{ .room }}
  {{- with .values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* The beginning of a room's container. Arguments: root, room, values. */}}
{{- define "onlinerlhf.container" -}}
name: {{ .room }}
image: {{ include "onlinerlhf.image" (dict "root" .root "room" .room "image" .values.image) }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
command: [/opt/venv/bin/python, -m, onlinerlhf.{{ .room }}]
securityContext:
  {{- include "onlinerlhf.containerSecurity" . | nindent 2 }}
resources:
  {{- toYaml .values.resources | nindent 2 }}
ports:
  - name: grpc
    containerPort: 50051
  {{- if and (eq .room "gateway") .values.http.enabled }}
  - name: http
    containerPort: 8000
  {{- end }}
  - name: health
    containerPort: 50052
  - name: metrics
    containerPort: 9090
{{- if .values.preStopSeconds }}
lifecycle:
  preStop:
    exec:
      # Kubernetes' own `sleep` action is there from 1.30 on only.
      command: [/opt/venv/bin/python, -c, import time; time.sleep({{ .values.preStopSeconds }})]
{{- end }}
{{- end }}

{{/* A gRPC probe on the plaintext health port. Arguments: service, periodSeconds, failureThreshold. */}}
{{- define "onlinerlhf.probe" -}}
grpc:
  port: 50052
  service: {{ .service | quote }}
periodSeconds: {{ .periodSeconds }}
timeoutSeconds: 5
failureThreshold: {{ .failureThreshold }}
{{- end }}

{{/* Probes. Arguments: startup and readiness (names of health services), startSeconds (most time to start). */}}
{{- define "onlinerlhf.probes" -}}
startupProbe:
  {{- $threshold := div (add .startSeconds 14) 5 }}
  {{- include "onlinerlhf.probe" (dict "service" .startup "periodSeconds" 5 "failureThreshold" $threshold) | nindent 2 }}
readinessProbe:
  {{- include "onlinerlhf.probe" (dict "service" .readiness "periodSeconds" 5 "failureThreshold" 2) | nindent 2 }}
# SIGTERM first: a process whose loop still turns hands its work back.
livenessProbe:
  {{- include "onlinerlhf.probe" (dict "service" "liveness" "periodSeconds" 10 "failureThreshold" 6) | nindent 2 }}
{{- end }}

{{/* Environment of every room. Arguments: root, room, values. */}}
{{- define "onlinerlhf.env" -}}
- name: ONLINERLHF_CONFIG
  value: /etc/onlinerlhf/config.toml
- name: ONLINERLHF_RUN__REDIS_URL
  valueFrom:
    secretKeyRef:
      name: {{ include "onlinerlhf.redisSecret" .root }}
      key: url
{{- if has .room (list "rollout" "reward") }}
# Also the consumer's name: a container that restarts in its pod finds the work it held.
- name: ONLINERLHF_{{ upper .room }}__WORKER_ID
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
{{- end }}
{{- if has .room (list "rollout" "reward" "learner") }}
# As many threads as the container has cores, not as many as the node.
- name: OMP_NUM_THREADS
  valueFrom:
    resourceFieldRef:
      containerName: {{ .room }}
      resource: limits.cpu
- name: HF_HUB_OFFLINE
  value: "1"
- name: TOKENIZERS_PARALLELISM
  value: "false"
{{- end }}
# Libraries keep their caches somewhere below.
- name: HOME
  value: /tmp
{{- end }}

{{- define "onlinerlhf.mounts" -}}
- name: config
  mountPath: /etc/onlinerlhf/config.toml
  subPath: config.toml
  readOnly: true
{{- if ne .root.Values.tls.mode "off" }}
# A directory, not single files: those would not follow the Secret's renewal.
- name: tls
  mountPath: /etc/onlinerlhf/tls
  readOnly: true
{{- end }}
- name: tmp
  mountPath: /tmp
{{- end }}

{{/* Arguments: root, room. */}}
{{- define "onlinerlhf.volumes" -}}
- name: config
  configMap:
    name: {{ include "onlinerlhf.fullname" .root }}-config
{{- if ne .root.Values.tls.mode "off" }}
- name: tls
  secret:
    secretName: {{ include "onlinerlhf.tlsSecret" . }}
    # Readable by the pod's group alone.
    defaultMode: 0440
{{- end }}
- name: tmp
  emptyDir:
    sizeLimit: 1Gi
{{- end }}

{{- define "onlinerlhf.modelsMount" -}}
- name: models
  mountPath: /models
  readOnly: true
{{- end }}

{{- define "onlinerlhf.modelsVolume" -}}
{{- $models := .Values.models -}}
- name: models
  persistentVolumeClaim:
    claimName: {{ eq $models.source "claim" | ternary $models.claim.existingClaim (printf "%s-models" (include "onlinerlhf.fullname" .)) }}
    {{- if and (eq $models.source "claim") $models.claim.readOnly }}
    readOnly: true
    {{- end }}
{{- end }}

{{/* Waits until the models are there. Arguments: root, room, values, dirs (of the models' volume). */}}
{{- define "onlinerlhf.waitForModels" -}}
- name: wait-for-models
  image: {{ include "onlinerlhf.image" (dict "root" .root "room" .room "image" .values.image) }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  command:
    - /opt/venv/bin/python
    - -m
    - onlinerlhf.runtime.await_path
    {{- range .dirs }}
    - /models/{{ . }}/config.json
    {{- end }}
    - --timeout-seconds
    - {{ .root.Values.models.waitSeconds | quote }}
  securityContext:
    {{- include "onlinerlhf.containerSecurity" . | nindent 4 }}
  resources:
    {{- toYaml .root.Values.initResources | nindent 4 }}
  volumeMounts:
    {{- include "onlinerlhf.modelsMount" . | nindent 4 }}
{{- end }}
