import datafree as df

digits, test = df.load_data("digits", "train"), df.load_data("digits", "test")
spec = df.InputSpec(shape=digits.shape, classes=digits.classes)

# The publisher has the data: a teacher, and a record of its activations.
teacher = df.new_model("hinton256", spec, seed=0)
df.train(teacher, digits, df.Schedule(epochs=40, learning_rate=2e-3))
record = df.record(teacher, digits, "sharp")

# The deployer has the teacher and the record, and no data.
student = df.distill(teacher, "hinton128", record=record, epoch_images=2560, epochs=30, batch=64)

print(
    f"record: {record.nbytes():,} bytes, forecast membership attack: "
    f"AUC {df.forecast_auc(record.released_statistics(teacher)):.3f}"
)
print(f"teacher {df.evaluate(teacher, test).accuracy} %, student without data {df.evaluate(student, test).accuracy} %")
